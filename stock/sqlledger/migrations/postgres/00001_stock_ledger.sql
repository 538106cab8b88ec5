-- +goose Up

-- One row per pool; only the end of an epoch and of the pool update it.
-- "stripes" are those of the item that has the most.
CREATE TABLE firstcome_stock_pool (
    sku     text COLLATE "C" PRIMARY KEY,
    epoch   bigint NOT NULL CHECK (epoch >= 1),
    stripes bigint NOT NULL CHECK (stripes >= 1),
    retired bigint NOT NULL DEFAULT 0 CHECK (retired IN (0, 1)) -- 1: over for good, no order enters it
);

-- The pool's epoch and end once more, several times: each order's transaction
-- locks one of the pool's gates FOR SHARE, that of its connection; the end of an
-- epoch and of the pool update all. One row for all orders would cost them more,
-- since PostgreSQL writes down who shares a row's lock.
CREATE TABLE firstcome_stock_gate (
    sku     text COLLATE "C" NOT NULL,
    gate    bigint NOT NULL,
    epoch   bigint NOT NULL,
    retired bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, gate)
) WITH (fillfactor = 10); -- few on a page, which is latched for each lock

-- The terms of the sale, as they are after all adjustments and as the pool was
-- opened with: JSON with times in milliseconds since 1970 (UTC) by the store's
-- clock. No order locks them.
CREATE TABLE firstcome_stock_terms (
    sku     text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL CHECK (version >= 1),
    terms   text COLLATE "C" NOT NULL,
    opened  text COLLATE "C" NOT NULL
);

-- How far the store's history is known. "ending" is the epoch that is being
-- ended: no order enters it any more, while the open ones finish.
CREATE TABLE firstcome_stock_mark (
    sku    text COLLATE "C" PRIMARY KEY,
    epoch  bigint NOT NULL,
    seq    bigint NOT NULL CHECK (seq >= 0),
    ending bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

-- The counters of sold units: one for each item (0 where the pool is one SKU),
-- spread over stripes so that sales don't queue for one row. The stripes' totals
-- sum up to the item's.
CREATE TABLE firstcome_stock_sold (
    sku    text COLLATE "C" NOT NULL,
    item   bigint NOT NULL,
    stripe bigint NOT NULL,
    total  bigint NOT NULL,
    sold   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, item, stripe),
    CONSTRAINT firstcome_stock_sold_within_total CHECK (sold >= 0 AND sold <= total)
) WITH (fillfactor = 10); -- room for new versions of a row on its page

-- One row per reservation that has an order, or (void) that must not get one.
-- IDs of one pool begin alike, so the primary key finds a pool's rows too.
-- "quantity" is what was asked for, of which "released_units" were given back
-- when a part was sold. In a pool with items "asked" and "released" say the same
-- by item, as in 0:2,3:1 (two of the first, one of the fourth); else they are ''.
-- One CHECK for all, since PostgreSQL reads each anew from its stored text in every
-- statement that writes. No index but the primary key, so that a sale changes none.
CREATE TABLE firstcome_stock_reservation (
    id             text COLLATE "C" PRIMARY KEY,
    sku            text COLLATE "C" NOT NULL,
    buyer          text COLLATE "C" NOT NULL,   -- '' where void
    quantity       bigint NOT NULL,
    expires_ms     bigint NOT NULL,
    epoch          bigint NOT NULL,
    stripe         bigint NOT NULL,
    state          text COLLATE "C" NOT NULL,
    asked          text COLLATE "C" NOT NULL,
    released       text COLLATE "C" NOT NULL,
    released_units bigint NOT NULL,
    CONSTRAINT firstcome_stock_reservation_is_whole CHECK (
        released_units >= 0 AND released_units <= quantity
        AND state IN ('held', 'sold', 'cancelled', 'expired', 'returned', 'void'))
) WITH (fillfactor = 85);

-- +goose Down
DROP TABLE firstcome_stock_reservation;
DROP TABLE firstcome_stock_sold;
DROP TABLE firstcome_stock_mark;
DROP TABLE firstcome_stock_terms;
DROP TABLE firstcome_stock_gate;
DROP TABLE firstcome_stock_pool;
