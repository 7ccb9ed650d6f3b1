-- The tables of examples/dags/sql_report.yaml, made once and filled anew for each day.
CREATE TABLE IF NOT EXISTS orders (day TEXT NOT NULL, region TEXT NOT NULL, item TEXT NOT NULL, price REAL NOT NULL);
CREATE TABLE IF NOT EXISTS totals (day TEXT NOT NULL, region TEXT NOT NULL, orders INTEGER NOT NULL, revenue REAL NOT NULL);

DELETE FROM orders WHERE day = :day;
INSERT INTO orders VALUES
    (:day, 'eu', 'lamp; blue', 20.5),
    (:day, 'eu', 'chair', 79.0),
    (:day, 'asia', 'desk', 240.0);
