-- +goose Up

-- One row per pool; only the end of an epoch and of the pool update it.
-- "stripes" are those of the item that has the most.
CREATE TABLE firstcome_stock_pool (
    sku     TEXT NOT NULL PRIMARY KEY,
    epoch   INTEGER NOT NULL CHECK (epoch >= 1),
    stripes INTEGER NOT NULL CHECK (stripes >= 1),
    retired INTEGER NOT NULL DEFAULT 0 CHECK (retired IN (0, 1)) -- 1: over for good, no order enters it
) STRICT, WITHOUT ROWID;

-- The terms of the sale, as they are after all adjustments and as the pool was
-- opened with: JSON with times in milliseconds since 1970 (UTC) by the store's
-- clock.
CREATE TABLE firstcome_stock_terms (
    sku     TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL CHECK (version >= 1),
    terms   TEXT NOT NULL,
    opened  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How far the store's history is known.
CREATE TABLE firstcome_stock_mark (
    sku    TEXT NOT NULL PRIMARY KEY,
    epoch  INTEGER NOT NULL,
    seq    INTEGER NOT NULL CHECK (seq >= 0)
) STRICT, WITHOUT ROWID;

-- The counters of sold units: one for each item (0 where the pool is one SKU),
-- spread over stripes as on the other databases. The stripes' totals sum up to
-- the item's.
CREATE TABLE firstcome_stock_sold (
    sku    TEXT NOT NULL,
    item   INTEGER NOT NULL,
    stripe INTEGER NOT NULL,
    total  INTEGER NOT NULL CHECK (total >= 0),
    sold   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, item, stripe),
    CONSTRAINT firstcome_stock_sold_within_total CHECK (sold >= 0 AND sold <= total)
) STRICT, WITHOUT ROWID;

-- One row per reservation that has an order, or (void) that must not get one.
-- IDs of one pool begin alike, so the primary key finds a pool's rows too.
-- "quantity" is what was asked for, of which "released_units" were given back
-- when a part was sold. In a pool with items "asked" and "released" say the same
-- by item, as in 0:2,3:1 (two of the first, one of the fourth); else they are ''.
CREATE TABLE firstcome_stock_reservation (
    id             TEXT NOT NULL PRIMARY KEY,
    sku            TEXT NOT NULL,
    buyer          TEXT NOT NULL, -- '' where void
    quantity       INTEGER NOT NULL CHECK (quantity >= 0),
    expires_ms     INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    stripe         INTEGER NOT NULL,
    state          TEXT NOT NULL
                   CHECK (state IN ('held', 'sold', 'cancelled', 'expired', 'returned', 'void')),
    asked          TEXT NOT NULL,
    released       TEXT NOT NULL,
    released_units INTEGER NOT NULL CHECK (released_units >= 0 AND released_units <= quantity)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE firstcome_stock_reservation;
DROP TABLE firstcome_stock_sold;
DROP TABLE firstcome_stock_mark;
DROP TABLE firstcome_stock_terms;
DROP TABLE firstcome_stock_pool;
