-- +goose Up
CREATE TABLE firstcome_inbox (
    handler  VARBINARY(100) NOT NULL,
    event_id VARBINARY(200) NOT NULL,
    done_at  BIGINT         NOT NULL COMMENT 'microseconds since 1970, by this server''s clock',
    PRIMARY KEY (handler, event_id),
    KEY firstcome_inbox_done_at (done_at)
) ENGINE = InnoDB;

-- +goose Down
DROP TABLE firstcome_inbox;
