-- +goose Up

-- One row per pool. Each order's transaction locks it FOR SHARE, so only the
-- end of an epoch updates it; what changes more often stands in other tables.
CREATE TABLE firstcome_stock_pool (
    sku     text COLLATE "C" PRIMARY KEY,
    epoch   bigint NOT NULL CHECK (epoch >= 1),
    stripes bigint NOT NULL CHECK (stripes >= 1)
);

-- The terms of the sale. Times are milliseconds since 1970 (UTC) by the
-- store's clock; NULL is none.
CREATE TABLE firstcome_stock_terms (
    sku         text COLLATE "C" PRIMARY KEY,
    total       bigint NOT NULL CHECK (total >= 1),
    buyer_limit bigint NOT NULL CHECK (buyer_limit >= 0), -- 0 is no limit
    hold_ms     bigint NOT NULL CHECK (hold_ms >= 1),
    opens_ms    bigint,
    closes_ms   bigint
);

-- How far the store's history is known. "ending" is the epoch that is being
-- ended: no order enters it any more, while the open ones finish.
CREATE TABLE firstcome_stock_mark (
    sku    text COLLATE "C" PRIMARY KEY,
    epoch  bigint NOT NULL,
    seq    bigint NOT NULL CHECK (seq >= 0),
    ending bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

-- The counter of sold units, spread over stripes so that sales don't queue for
-- one row. The stripes' totals sum up to the pool's.
CREATE TABLE firstcome_stock_sold (
    sku    text COLLATE "C" NOT NULL,
    stripe bigint NOT NULL,
    total  bigint NOT NULL CHECK (total >= 0),
    sold   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, stripe),
    CONSTRAINT firstcome_stock_sold_within_total CHECK (sold >= 0 AND sold <= total)
) WITH (fillfactor = 10); -- room for new versions of a row on its page

-- One row per reservation that has an order, or (void) that must not get one.
-- IDs of one pool begin alike, so the primary key finds a pool's rows too.
CREATE TABLE firstcome_stock_reservation (
    id         text COLLATE "C" PRIMARY KEY,
    sku        text COLLATE "C" NOT NULL,
    buyer      text COLLATE "C" NOT NULL,   -- '' where void
    quantity   bigint NOT NULL CHECK (quantity >= 0),
    expires_ms bigint NOT NULL,
    epoch      bigint NOT NULL,
    stripe     bigint NOT NULL,
    state      text COLLATE "C" NOT NULL
               CHECK (state IN ('held', 'sold', 'cancelled', 'expired', 'returned', 'void'))
) WITH (fillfactor = 85);

-- +goose Down
DROP TABLE firstcome_stock_reservation;
DROP TABLE firstcome_stock_sold;
DROP TABLE firstcome_stock_mark;
DROP TABLE firstcome_stock_terms;
DROP TABLE firstcome_stock_pool;
