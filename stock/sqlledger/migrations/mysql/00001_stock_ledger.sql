-- +goose Up

-- Names are VARBINARY: they compare byte by byte, without folding case or
-- ignoring trailing spaces as text collations do.

-- One row per pool. Each order's transaction locks it in share mode, so only
-- the end of an epoch updates it; what changes more often stands in other
-- tables.
CREATE TABLE firstcome_stock_pool (
    sku     VARBINARY(255) NOT NULL PRIMARY KEY,
    epoch   BIGINT NOT NULL CHECK (epoch >= 1),
    stripes BIGINT NOT NULL CHECK (stripes >= 1)
) ENGINE = InnoDB;

-- The terms of the sale. Times are milliseconds since 1970 (UTC) by the
-- store's clock; NULL is none.
CREATE TABLE firstcome_stock_terms (
    sku         VARBINARY(255) NOT NULL PRIMARY KEY,
    total       BIGINT NOT NULL CHECK (total >= 1),
    buyer_limit BIGINT NOT NULL CHECK (buyer_limit >= 0), -- 0 is no limit
    hold_ms     BIGINT NOT NULL CHECK (hold_ms >= 1),
    opens_ms    BIGINT,
    closes_ms   BIGINT
) ENGINE = InnoDB;

-- How far the store's history is known.
CREATE TABLE firstcome_stock_mark (
    sku    VARBINARY(255) NOT NULL PRIMARY KEY,
    epoch  BIGINT NOT NULL,
    seq    BIGINT NOT NULL CHECK (seq >= 0)
) ENGINE = InnoDB;

-- The counter of sold units, spread over stripes so that sales don't queue for
-- one row. The stripes' totals sum up to the pool's.
CREATE TABLE firstcome_stock_sold (
    sku    VARBINARY(255) NOT NULL,
    stripe BIGINT NOT NULL,
    total  BIGINT NOT NULL CHECK (total >= 0),
    sold   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, stripe),
    CONSTRAINT firstcome_stock_sold_within_total CHECK (sold >= 0 AND sold <= total)
) ENGINE = InnoDB;

-- One row per reservation that has an order, or (void) that must not get one.
-- IDs of one pool begin alike, so the primary key finds a pool's rows too. It
-- is the only unique index: a duplicate then locks its own record and no gap.
CREATE TABLE firstcome_stock_reservation (
    id         CHAR(58) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    sku        VARBINARY(255) NOT NULL,
    buyer      VARBINARY(255) NOT NULL, -- '' where void
    quantity   BIGINT NOT NULL CHECK (quantity >= 0),
    expires_ms BIGINT NOT NULL,
    epoch      BIGINT NOT NULL,
    stripe     BIGINT NOT NULL,
    state      VARCHAR(9) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
               CHECK (state IN ('held', 'sold', 'cancelled', 'expired', 'returned', 'void'))
) ENGINE = InnoDB;

-- +goose Down
DROP TABLE firstcome_stock_reservation;
DROP TABLE firstcome_stock_sold;
DROP TABLE firstcome_stock_mark;
DROP TABLE firstcome_stock_terms;
DROP TABLE firstcome_stock_pool;
