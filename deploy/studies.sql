-- The database of sweeps: Optuna and MLflow both keep a table `alembic_version`, so they need one each.
CREATE DATABASE studies;
