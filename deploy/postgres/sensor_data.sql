-- Readings as the product reads them by default: postgresql://…/database?table=sensor_data.
--   psql postgresql://user@host/database -f deploy/postgres/sensor_data.sql
-- With TimescaleDB afterwards: SELECT create_hypertable('sensor_data', by_range('timestamp'));
CREATE TABLE IF NOT EXISTS sensor_data (
    sensor_id   text             NOT NULL,
    sensor_type text             NOT NULL,                                  -- power, energy, voltage, current, …
    timestamp   timestamptz      NOT NULL,
    value       double precision CHECK (abs(value) < 'Infinity'),           -- NULL: the sensor reported nothing
    latitude    double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude   double precision CHECK (longitude BETWEEN -180 AND 180),
    unit        text,
    is_anomaly  boolean,                                                    -- a label, where somebody gave one
    fault       text                                                        -- the simulator's: what was done
);
-- Not unique: a reading may arrive twice, or corrected.
CREATE INDEX IF NOT EXISTS sensor_data_of_sensor ON sensor_data (sensor_id, timestamp);
CREATE INDEX IF NOT EXISTS sensor_data_of_time ON sensor_data USING brin (timestamp);
