package testenv_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m,
		testenv.Role{Name: "greeter", Main: greet},
		testenv.Role{Name: "parent", Main: beParent},
	)
}

// greet says hello and stays.
func greet() error {
	fmt.Println("hello", os.Getenv("GREETED"))
	time.Sleep(time.Minute)
	return nil
}
