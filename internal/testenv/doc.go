// Package testenv gives a test real servers, and the means to break them.
//
// A test asks for what it needs; the server is started on first use, in a
// fresh folder below the temporary one and on a free loopback port, shared by
// all tests of the binary, and gone when the binary ends, even by kill -9:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
//	func TestReserve(t *testing.T) {
//		server := testenv.Redis(t)
//		store := redisstock.New(server.Client(t), server.Prefix())
//		…
//	}
//
// A test that wants to break its server takes a private one, which it may
// [Controls.Stop], [Controls.Cont], [Controls.Kill] and [Controls.Restart]:
//
//	server := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
//	server.Kill()
//	server.Restart()
//
// [NewRedisPair] is a primary and a replica whose link may be cut,
// [NewRedisFailover] puts one client before them, [NewRedisSentinel] fails over
// between them, and [NewRedisCluster] moves slots under the feet of its clients.
// [NewRedisClock] has a clock that jumps, and [RedisServer.RestartCut] loses the
// last writes.
//
// [Start] gives a child process of the test's own (another role of the same
// test binary by [Role] and [Command], or an example built by [Build]) the
// same controls. [Mini], [Bubble] and [EachRedis] reach the embedded stand-in.
//
// Where a server is not installed the test is skipped and says what to
// install, and the binary says at its end how many were (see [SkippedPrefix]);
// with FIRSTCOME_REQUIRE_SERVERS=1 the test fails instead. Binaries are looked
// for in PATH and in the usual Debian folders, Kafka's jars in the folder
// $FIRSTCOME_SERVERS or in firstcome/kafka-4.3.1 of the user's cache folder. With
// FIRSTCOME_NO_SERVERS=1 none is found, wherever it is installed, as on a machine
// with Go alone; both variables at once are refused, and so is any value but 1
// and 0.
//
// Limits: Linux is where everything holds. Elsewhere on Unix a killed test
// binary may leave its servers behind, and Stop reaches a server's process
// group only.
package testenv
