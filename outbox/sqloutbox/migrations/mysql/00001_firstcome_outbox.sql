-- +goose Up
CREATE TABLE firstcome_outbox (
    lane       TINYINT       NOT NULL,                 -- hash of topic and key, 0 to 63
    seq        BIGINT        NOT NULL AUTO_INCREMENT,  -- handed out in the order of time
    format     SMALLINT      NOT NULL,                 -- version of this record
    topic      VARBINARY(249) NOT NULL,                -- binary: compared byte for byte
    msg_key    VARBINARY(255) NOT NULL,
    id         VARBINARY(255) NOT NULL,
    headers    MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL, -- JSON object, or empty
    payload    LONGBLOB      NOT NULL,
    written_at BIGINT        NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)), -- ms since 1970
    PRIMARY KEY (lane, seq),
    UNIQUE KEY firstcome_outbox_seq (seq)
) ENGINE = InnoDB;

CREATE TABLE firstcome_outbox_parked (
    seq        BIGINT        NOT NULL PRIMARY KEY,
    lane       TINYINT       NOT NULL,
    format     SMALLINT      NOT NULL,
    topic      VARBINARY(249) NOT NULL,
    msg_key    VARBINARY(255) NOT NULL,
    id         VARBINARY(255) NOT NULL,
    headers    MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,
    payload    LONGBLOB      NOT NULL,
    written_at BIGINT        NOT NULL,
    held       BOOLEAN       NOT NULL,                 -- waits behind a parked one of its key
    attempts   INT           NOT NULL,
    reason     TEXT CHARACTER SET utf8mb4 NOT NULL,
    parked_at  BIGINT        NOT NULL,                 -- ms since 1970
    KEY firstcome_outbox_parked_key (lane, topic, msg_key, seq)
) ENGINE = InnoDB;

CREATE TABLE firstcome_outbox_lane (
    lane    TINYINT        NOT NULL PRIMARY KEY,
    owner   VARBINARY(64)  NOT NULL DEFAULT '',        -- relay, or empty
    epoch   BIGINT         NOT NULL DEFAULT 0,         -- rises each time the lane changes hands
    until   BIGINT         NOT NULL DEFAULT 0,         -- end of the lease, ms since 1970
    rewinds BIGINT         NOT NULL DEFAULT 0,         -- rises each time rows are put back
    moves   BIGINT         NOT NULL DEFAULT 0,         -- changed by whoever locks the row
    relayed BIGINT         NOT NULL DEFAULT 0,         -- rows acknowledged and deleted
    dropped BIGINT         NOT NULL DEFAULT 0          -- rows deleted by an operator
) ENGINE = InnoDB;
INSERT INTO firstcome_outbox_lane (lane)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 63) SELECT i FROM n;

CREATE TABLE firstcome_outbox_relay (
    relay VARBINARY(64) NOT NULL PRIMARY KEY,
    until BIGINT        NOT NULL                       -- alive until, ms since 1970
) ENGINE = InnoDB;

-- +goose Down
DROP TABLE firstcome_outbox_relay;
DROP TABLE firstcome_outbox_lane;
DROP TABLE firstcome_outbox_parked;
DROP TABLE firstcome_outbox;
