-- +goose Up
CREATE TABLE firstcome_inbox (
    handler  TEXT    NOT NULL,
    event_id TEXT    NOT NULL,
    done_at  INTEGER NOT NULL, -- microseconds since 1970
    PRIMARY KEY (handler, event_id)
) WITHOUT ROWID;
CREATE INDEX firstcome_inbox_done_at ON firstcome_inbox (done_at);

-- +goose Down
DROP TABLE firstcome_inbox;
