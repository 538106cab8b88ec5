-- +goose Up
CREATE TABLE firstcome_inbox (
    handler  text   COLLATE "C" NOT NULL,
    event_id text   COLLATE "C" NOT NULL,
    done_at  bigint NOT NULL, -- microseconds since 1970, by this server's clock
    PRIMARY KEY (handler, event_id)
);
CREATE INDEX firstcome_inbox_done_at ON firstcome_inbox (done_at);

-- +goose Down
DROP TABLE firstcome_inbox;
