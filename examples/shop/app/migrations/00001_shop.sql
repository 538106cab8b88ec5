-- +goose Up
CREATE TABLE shop_order (
    id             VARCHAR(64)  NOT NULL PRIMARY KEY,
    reservation_id VARCHAR(64)  NOT NULL UNIQUE,
    sku            VARCHAR(255) NOT NULL,
    buyer          VARCHAR(255) NOT NULL,
    quantity       BIGINT       NOT NULL,
    expires_at     BIGINT       NOT NULL, -- ms since 1970
    placed_at      BIGINT       NOT NULL, -- ms since 1970
    status         VARCHAR(16)  NOT NULL CHECK (status IN ('held', 'confirmed', 'cancelled')),
    settled_at     BIGINT       NOT NULL DEFAULT 0 -- ms since 1970: nothing is left to do; 0: something is
);
CREATE INDEX shop_order_placed ON shop_order (sku, placed_at);
CREATE INDEX shop_order_unsettled ON shop_order (sku, expires_at, id) WHERE settled_at = 0;

-- The payment provider's own books. shop_payment is its idempotency record;
-- shop_charge has one row per charge that reached the card, without a unique
-- key on purpose: a second charge must be able to show.
CREATE TABLE shop_payment (
    id       VARCHAR(64) NOT NULL PRIMARY KEY,
    quantity BIGINT      NOT NULL,
    status   VARCHAR(16) NOT NULL CHECK (status IN ('authorised', 'captured', 'declined', 'voided'))
);
CREATE TABLE shop_charge (
    payment_id VARCHAR(64) NOT NULL,
    quantity   BIGINT      NOT NULL
);
CREATE INDEX shop_charge_payment ON shop_charge (payment_id);

-- +goose Down
DROP TABLE shop_charge;
DROP TABLE shop_payment;
DROP TABLE shop_order;
