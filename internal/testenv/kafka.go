package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// KafkaVersion is the version of Apache Kafka that the tests run on.
const KafkaVersion = "4.3.1"

// KafkaServer is a real Apache Kafka on loopback: one node, broker and
// controller in one, that makes topics (of 4 partitions) on first use. [Kafka]
// gives the shared one, [NewKafka] a private one, whose [Controls] may be used.
type KafkaServer struct{ Controls }

var sharedKafka shared

// Kafka returns the Kafka that the tests of this binary share. Topics and
// groups are told apart by [Name].
func Kafka(t TB) *KafkaServer {
	t.Helper()
	return &KafkaServer{sharedKafka.controls(t, func() (*process, error) { return startKafka(nil, useKafkaArchive) })}
}

// NewKafka starts a Kafka for this test alone. Each of conf is a line of
// server.properties, such as "num.partitions=1". It takes some 400 MB.
func NewKafka(t TB, conf ...string) *KafkaServer {
	t.Helper()
	return &KafkaServer{own(t, func() (*process, error) { return startKafka(conf, useKafkaArchive) })}
}

// Addr is host:port.
func (s *KafkaServer) Addr() string { return loopback(s.process.port) }

// URL is kafka://host:port.
func (s *KafkaServer) URL() string { return "kafka://" + s.Addr() }

// Brokers is what Kafka clients take: the one address, in a list.
func (s *KafkaServer) Brokers() []string { return []string{s.Addr()} }

// Log levels: only what tells of trouble.
const kafkaLogging = `
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %m (%c)%n
`

// startKafka starts a broker. archive are the flags of Java by which it finds
// or makes an archive of classes.
func startKafka(conf []string, archive func(jars string) []string) (*process, error) {
	java, err := find("java", "apt-get install default-jre-headless", "/usr/lib/jvm/*/bin/java")
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars()
	if err != nil {
		return nil, err
	}
	return serve("kafka", func(dir string, port int) (*process, error) {
		controller, err := freePort()
		if err != nil {
			return nil, err
		}
		properties, logging := filepath.Join(dir, "server.properties"), filepath.Join(dir, "log4j2.properties")
		if err := os.WriteFile(properties, []byte(kafkaProperties(dir, port, controller, conf)), 0o600); err != nil {
			return nil, fmt.Errorf("configure kafka: %w", err)
		}
		if err := os.WriteFile(logging, []byte(kafkaLogging), 0o600); err != nil {
			return nil, fmt.Errorf("configure kafka: %w", err)
		}
		common := append([]string{
			"-cp", filepath.Join(jars, "*"), "-Dlog4j2.configurationFile=" + logging,
			// A short life on few cores: less compiling, fewer threads.
			"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		}, archive(jars)...)
		cluster := newClusterID()
		if err := formatKafka(java, common, properties, cluster); err != nil {
			return nil, err
		}
		run := exec.Command(java, append(common, "-Xmx512m", "-Djava.awt.headless=true", "kafka.Kafka", properties)...)
		run.Dir = dir
		return newProcess("kafka", run, readiness{probe: func() bool { return kafkaReady(port, cluster) }}, syscall.SIGKILL), nil
	})
}

// formatKafka writes the folder's identity, without which no broker starts.
func formatKafka(java string, common []string, properties, cluster string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	format := exec.CommandContext(ctx, java, append(common[:len(common):len(common)],
		"kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", properties)...)
	if text, err := format.CombinedOutput(); err != nil {
		return fmt.Errorf("format kafka's storage: %w\n%s", err, text)
	}
	return nil
}

func kafkaProperties(dir string, port, controller int, conf []string) string {
	return strings.Join(append([]string{
		"process.roles=broker,controller",
		"node.id=1",
		fmt.Sprintf("listeners=PLAINTEXT://%s,CONTROLLER://%s", loopback(port), loopback(controller)),
		"advertised.listeners=PLAINTEXT://" + loopback(port),
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names=CONTROLLER",
		"controller.quorum.bootstrap.servers=" + loopback(controller),
		"log.dirs=" + filepath.Join(dir, "data"),
		"auto.create.topics.enable=true",
		"num.partitions=4",
		"default.replication.factor=1",
		"min.insync.replicas=1",
		// The internal topics: one copy, and few partitions to open.
		"offsets.topic.num.partitions=4",
		"offsets.topic.replication.factor=1",
		"transaction.state.log.num.partitions=2",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.num.partitions=2",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		// A test's consumer gets its partitions at once, and one that was
		// killed may lose them within a second, if it asks for that.
		"group.initial.rebalance.delay.ms=0",
		"group.min.session.timeout.ms=1000",
		// A broker that was killed may come back once its last life is over for
		// the controller, which by default takes nine seconds to see that.
		"broker.session.timeout.ms=2000",
		"broker.heartbeat.interval.ms=500",
		"num.network.threads=2",
		"num.io.threads=4",
		"log.cleaner.dedupe.buffer.size=4194304",
	}, conf...), "\n") + "\n"
}

// kafkaJars finds the folder that `make servers-install` filled.
func kafkaJars() (string, error) {
	dir := os.Getenv("FIRSTCOME_SERVERS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find kafka's jars: %w", err)
		}
		dir = filepath.Join(cache, "firstcome", "kafka-"+KafkaVersion)
	}
	if _, err := os.Stat(filepath.Join(dir, "kafka_2.13-"+KafkaVersion+".jar")); err != nil || noServers() {
		return "", &missingError{
			what: "Apache Kafka " + KafkaVersion + " in " + dir,
			by:   "Maven copies org.apache.kafka:kafka_2.13:" + KafkaVersion + " and what it needs",
		}
	}
	return dir, nil
}
