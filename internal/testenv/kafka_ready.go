package testenv

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"time"
)

// newClusterID makes the name by which a test's Kafka is told from another.
func newClusterID() string {
	for {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails
		// One that starts with a dash would look like a flag to StorageTool.
		if text := base64.RawURLEncoding.EncodeToString(id[:]); text[0] != '-' {
			return text
		}
	}
}

// kafkaReady asks what listens on port whether it is the broker of that
// cluster and takes part in it. It speaks just that much of Kafka's protocol,
// so that no test pays for a client that it does not use.
func kafkaReady(port int, cluster string) bool {
	conn, err := net.DialTimeout("tcp", loopback(port), time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write(metadataRequest()); err != nil {
		return false
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return false
	}
	answer, err := io.ReadAll(io.LimitReader(conn, int64(binary.BigEndian.Uint32(size[:]))))
	if err != nil {
		return false
	}
	// Correlation ID and throttle time come first (4 bytes each), then how
	// many brokers there are, and a little later the cluster's ID.
	return len(answer) > 12 && binary.BigEndian.Uint32(answer[8:]) == 1 && bytes.Contains(answer, []byte(cluster))
}

// metadataRequest asks for the brokers and for no topic (Metadata, version 4).
func metadataRequest() []byte {
	body := []byte{
		0, 3, // Metadata
		0, 4, // version
		0, 0, 0, 1, // correlation ID
		0xff, 0xff, // no client ID
		0, 0, 0, 0, // no topics
		0, // and make none
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...) //nolint:gosec // 15
}
