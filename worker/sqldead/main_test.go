package sqldead_test

import (
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m, testenv.Role{Name: "worker", Main: workerProcess})
}
