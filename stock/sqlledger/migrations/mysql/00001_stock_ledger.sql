-- +goose Up

-- Names are VARBINARY: they compare byte by byte, without folding case or
-- ignoring trailing spaces as text collations do.

-- One row per pool. Each order's transaction locks it in share mode, so only
-- the end of an epoch and of the pool update it; what changes more often stands
-- in other tables. "stripes" are those of the item that has the most.
CREATE TABLE firstcome_stock_pool (
    sku     VARBINARY(255) NOT NULL PRIMARY KEY,
    epoch   BIGINT NOT NULL CHECK (epoch >= 1),
    stripes BIGINT NOT NULL CHECK (stripes >= 1),
    retired BIGINT NOT NULL DEFAULT 0 CHECK (retired IN (0, 1)) -- 1: over for good, no order enters it
) ENGINE = InnoDB;

-- The terms of the sale, as they are after all adjustments and as the pool was
-- opened with: JSON with times in milliseconds since 1970 (UTC) by the store's
-- clock. No order locks them.
CREATE TABLE firstcome_stock_terms (
    sku     VARBINARY(255) NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL CHECK (version >= 1),
    terms   MEDIUMBLOB NOT NULL,
    opened  MEDIUMBLOB NOT NULL
) ENGINE = InnoDB;

-- How far the store's history is known.
CREATE TABLE firstcome_stock_mark (
    sku    VARBINARY(255) NOT NULL PRIMARY KEY,
    epoch  BIGINT NOT NULL,
    seq    BIGINT NOT NULL CHECK (seq >= 0)
) ENGINE = InnoDB;

-- The counters of sold units: one for each item (0 where the pool is one SKU),
-- spread over stripes so that sales don't queue for one row. The stripes' totals
-- sum up to the item's.
CREATE TABLE firstcome_stock_sold (
    sku    VARBINARY(255) NOT NULL,
    item   BIGINT NOT NULL,
    stripe BIGINT NOT NULL,
    total  BIGINT NOT NULL CHECK (total >= 0),
    sold   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, item, stripe),
    CONSTRAINT firstcome_stock_sold_within_total CHECK (sold >= 0 AND sold <= total)
) ENGINE = InnoDB;

-- One row per reservation that has an order, or (void) that must not get one.
-- IDs of one pool begin alike, so the primary key finds a pool's rows too. It
-- is the only unique index: a duplicate then locks its own record and no gap.
-- "quantity" is what was asked for, of which "released_units" were given back
-- when a part was sold. In a pool with items "asked" and "released" say the same
-- by item, as in 0:2,3:1 (two of the first, one of the fourth); else they are ''.
CREATE TABLE firstcome_stock_reservation (
    id             CHAR(58) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    sku            VARBINARY(255) NOT NULL,
    buyer          VARBINARY(255) NOT NULL, -- '' where void
    quantity       BIGINT NOT NULL CHECK (quantity >= 0),
    expires_ms     BIGINT NOT NULL,
    epoch          BIGINT NOT NULL,
    stripe         BIGINT NOT NULL,
    state          VARCHAR(9) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
                   CHECK (state IN ('held', 'sold', 'cancelled', 'expired', 'returned', 'void')),
    asked          VARCHAR(1500) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    released       VARCHAR(1500) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    released_units BIGINT NOT NULL CHECK (released_units >= 0 AND released_units <= quantity)
) ENGINE = InnoDB;

-- +goose Down
DROP TABLE firstcome_stock_reservation;
DROP TABLE firstcome_stock_sold;
DROP TABLE firstcome_stock_mark;
DROP TABLE firstcome_stock_terms;
DROP TABLE firstcome_stock_pool;
