-- +goose Up

-- One row per pool; only the end of an epoch updates it.
CREATE TABLE firstcome_stock_pool (
    sku     TEXT NOT NULL PRIMARY KEY,
    epoch   INTEGER NOT NULL CHECK (epoch >= 1),
    stripes INTEGER NOT NULL CHECK (stripes >= 1)
) STRICT, WITHOUT ROWID;

-- The terms of the sale. Times are milliseconds since 1970 (UTC) by the
-- store's clock; NULL is none.
CREATE TABLE firstcome_stock_terms (
    sku         TEXT NOT NULL PRIMARY KEY,
    total       INTEGER NOT NULL CHECK (total >= 1),
    buyer_limit INTEGER NOT NULL CHECK (buyer_limit >= 0), -- 0 is no limit
    hold_ms     INTEGER NOT NULL CHECK (hold_ms >= 1),
    opens_ms    INTEGER,
    closes_ms   INTEGER
) STRICT, WITHOUT ROWID;

-- How far the store's history is known.
CREATE TABLE firstcome_stock_mark (
    sku    TEXT NOT NULL PRIMARY KEY,
    epoch  INTEGER NOT NULL,
    seq    INTEGER NOT NULL CHECK (seq >= 0)
) STRICT, WITHOUT ROWID;

-- The counter of sold units, spread over stripes as on the other databases.
-- The stripes' totals sum up to the pool's.
CREATE TABLE firstcome_stock_sold (
    sku    TEXT NOT NULL,
    stripe INTEGER NOT NULL,
    total  INTEGER NOT NULL CHECK (total >= 0),
    sold   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, stripe),
    CONSTRAINT firstcome_stock_sold_within_total CHECK (sold >= 0 AND sold <= total)
) STRICT, WITHOUT ROWID;

-- One row per reservation that has an order, or (void) that must not get one.
-- IDs of one pool begin alike, so the primary key finds a pool's rows too.
CREATE TABLE firstcome_stock_reservation (
    id         TEXT NOT NULL PRIMARY KEY,
    sku        TEXT NOT NULL,
    buyer      TEXT NOT NULL, -- '' where void
    quantity   INTEGER NOT NULL CHECK (quantity >= 0),
    expires_ms INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    stripe     INTEGER NOT NULL,
    state      TEXT NOT NULL
               CHECK (state IN ('held', 'sold', 'cancelled', 'expired', 'returned', 'void'))
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE firstcome_stock_reservation;
DROP TABLE firstcome_stock_sold;
DROP TABLE firstcome_stock_mark;
DROP TABLE firstcome_stock_terms;
DROP TABLE firstcome_stock_pool;
