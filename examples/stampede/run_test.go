package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if serveBareIfAsked() { // the tests' child processes are this binary, too
		return
	}
	os.Exit(m.Run())
}

// stampede runs the program against a shop and returns what it prints.
func stampede(t *testing.T, url string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append([]string{"-url", url, "-users", "300", "-conns", "20", "-duplicates", "0.2", "-cut", "0.05"}, args...)
	var out, progress bytes.Buffer
	err = realMain(ctx, args, &out, &progress)
	return out.String(), progress.String(), err
}

func TestStampede_EndsWithTheAuditLine(t *testing.T) {
	t.Parallel()
	shop, server := newFakeShop(t, 100, noFault)
	out, _, err := stampede(t, server.URL)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := "AUDIT OK: 100 sold to 100 buyers, 0 oversold, 0 stranded, 0 duplicates, events 100 written 100 handled"
	if got := lines[len(lines)-1]; got != want {
		t.Errorf("the last line is\n%s\nwant\n%s", got, want)
	}
	for _, part := range []string{"201 held", "409 sold-out", "replayed", "cut on purpose", "request written to answer read"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in the report:\n%s", part, out)
		}
	}
	// Each buyer once, a fifth of them twice, and a twentieth again after the cut.
	if want := 300 + 60 + 15; shop.asked != want {
		t.Errorf("the shop was asked %d times, want %d", shop.asked, want)
	}
}

func TestStampede_NamesEachFaultAndFails(t *testing.T) {
	t.Parallel()
	for fault, want := range map[fault]string{
		oversells:    "3 units sold beyond the stock of 100",
		ordersTwice:  "heard answers that disagree",
		changesItsNo: "heard answers that disagree",
		sharesOrders: "1 buyers hold an order that is another's too",
		strands:      "1 units are still held",
		losesEvents:  "100 events written, and 99 handled",
		losesOrders:  "1 orders that buyers hold are not there",
		makesUntold:  "the shop has 1 orders that no buyer was told of",
		chargesTwice: "101 payments are charged, and 100 orders confirmed",
		refusesEarly: "5 units are free, and",
		admitsFaults: "the shop says: charged o-1 twice",
		miscounts:    "1 free + 0 held + 100 sold is not 100",
		breaks:       "unexpected answers 500 internal",
		sellsNothing: "unexpected answers 404 unknown-sku",
		hasNoBooks:   "GET /audit: status 404",
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			_, server := newFakeShop(t, 100, fault)
			out, _, err := stampede(t, server.URL, "-quiet", "-settle", "1500ms")
			if !errors.Is(err, errAudit) {
				t.Errorf("the run ended with %v", err)
			}
			if !strings.HasPrefix(out, "AUDIT FAILED: ") || !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
				t.Errorf("printed\n%s\nwant a line with %q", out, want)
			}
		})
	}
}

func TestStampede_BearsWhatIsNoFault(t *testing.T) {
	t.Parallel()
	for fault, want := range map[fault]string{
		isBusy:        "AUDIT OK: 100 sold to 100 buyers, 0 oversold, 0 stranded, 0 duplicates, events 100 written 100 handled\n",
		hangsUp:       "AUDIT OK: 100 sold to 100 buyers, 0 oversold, 0 stranded, 0 duplicates, events 100 written 100 handled\n",
		declinesCards: "AUDIT OK: 270 sold to 270 buyers, 0 oversold, 0 stranded, 0 duplicates, events 300 written 300 handled\n",
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			stock := 100
			if fault == declinesCards {
				stock = 300 // of whose numbers 30 end in 3; a sold-out beside free units would be a fault
			}
			_, server := newFakeShop(t, stock, fault)
			out, _, err := stampede(t, server.URL, "-quiet")
			if err != nil || out != want {
				t.Errorf("%v, printed\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}

func TestStampede_CountsWhatWasSentAgainApart(t *testing.T) {
	t.Parallel()
	_, server := newFakeShop(t, 100, isBusy)
	out, progress, err := stampede(t, server.URL, "-json")
	if err != nil {
		t.Fatal(err)
	}
	if progress != "" {
		t.Errorf("with -json there was progress: %q", progress)
	}
	var got struct {
		Final map[string]int `json:"final"`
		Again map[string]int `json:"again"`
		Told  struct {
			Winners int `json:"winners"`
		} `json:"told"`
		Verdict struct {
			OK bool `json:"ok"`
		} `json:"verdict"`
		AnswerTime map[string]float64 `json:"answer_time_ms"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if got.Final["201 held"]+got.Final["409 sold-out"] != 360 || got.Told.Winners != 100 || !got.Verdict.OK {
		t.Errorf("final answers %v, %d winners, ok %v", got.Final, got.Told.Winners, got.Verdict.OK)
	}
	for _, label := range []string{"503 unavailable", "429 rate limited", "409 in-flight"} {
		if got.Again[label] == 0 {
			t.Errorf("no %s in %v", label, got.Again)
		}
	}
	if a := got.AnswerTime; a["p50"] <= 0 || a["p50"] > a["p99"] || a["p99"] > a["max"] {
		t.Errorf("answer times %v", a)
	}
}

func TestStampede_ContinuesASaleThatHasBegun(t *testing.T) {
	t.Parallel()
	_, server := newFakeShop(t, 400, noFault)
	if out, _, err := stampede(t, server.URL, "-quiet"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, _, err := stampede(t, server.URL)
	if err != nil || !strings.Contains(out, "AUDIT OK: 100 sold to 100 buyers, 0 oversold, 0 stranded, 0 duplicates, events 100 written 100 handled") {
		t.Errorf("%v, printed\n%s", err, out)
	}
	if !strings.Contains(out, "300 units were sold before this run") {
		t.Errorf("nothing of the units sold before:\n%s", out)
	}
}

func TestStampede_EndsWithWhatItHas(t *testing.T) {
	t.Parallel()
	t.Run("when its time is over", func(t *testing.T) {
		t.Parallel()
		_, server := newFakeShop(t, 100, neverAnswers)
		out, _, err := stampede(t, server.URL, "-timeout", "1s", "-conns", "40")
		if !errors.Is(err, errAudit) || !strings.Contains(out, "AUDIT FAILED: cut short: -timeout reached; ") ||
			!strings.Contains(out, " buyers without an answer") || !strings.Contains(out, "201 held") {
			t.Errorf("%v, printed\n%s", err, out)
		}
	})
	t.Run("when it is interrupted", func(t *testing.T) {
		t.Parallel()
		_, server := newFakeShop(t, 100, neverAnswers)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // as ctrl-C does
		defer cancel()
		var out, progress bytes.Buffer
		err := realMain(ctx, []string{"-url", server.URL, "-users", "300", "-conns", "40", "-quiet"}, &out, &progress)
		if !errors.Is(err, errAudit) || !strings.HasPrefix(out.String(), "AUDIT FAILED: cut short: ") {
			t.Errorf("%v, printed\n%s", err, out.String())
		}
	})
}

func TestStampede_ComparesWithTheBareHandler(t *testing.T) {
	t.Parallel()
	_, server := newFakeShop(t, 100, noFault)
	out, _, err := stampede(t, server.URL, "-baseline", "-json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got struct {
		Elapsed  float64 `json:"elapsed_ms"`
		Baseline struct {
			Elapsed float64 `json:"elapsed_ms"`
			Ratio   float64 `json:"ratio"`
		} `json:"baseline"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if want := got.Elapsed / got.Baseline.Elapsed; got.Baseline.Ratio < want*0.99 || got.Baseline.Ratio > want*1.01 {
		t.Errorf("%v ms against %v ms is a ratio of %v?", got.Elapsed, got.Baseline.Elapsed, got.Baseline.Ratio)
	}
}

func TestStampede_ShowsProgress(t *testing.T) {
	t.Parallel()
	_, server := newFakeShop(t, 100, noFault)
	_, progress, err := stampede(t, server.URL)
	if err != nil || !strings.Contains(progress, "opening 20 connections\n") || strings.Contains(progress, "\r") {
		t.Errorf("%v, progress %q", err, progress)
	}
}

func TestStampede_RefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-users 0":                            "-users is 0",
		"-users ten":                          "-users",
		"-conns -1":                           "-conns is -1",
		"-duplicates 2":                       "-duplicates is 2",
		"-cut NaN":                            "-cut is NaN",
		"-timeout 0s":                         "-timeout is 0s",
		"-sku=":                               "-sku is empty",
		"-redis redis://127.0.0.1":            "not for one at -url",
		"ticket":                              `"ticket" is not a flag`,
		"-url 127.0.0.1:8080":                 "-url",
		"-url ftp://127.0.0.1":                "must look like",
		"-url http://user:secret@127.0.0.1":   "must have no user",
		"-url http://192.0.2.1:80":            "192.0.2.1 is not on this machine",
		"-url http://127.0.0.1:1 -settle 1ns": "GET /audit",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			_, _, err := stampede(t, "http://127.0.0.1:1", strings.Fields(args)...)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v; want %q", err, want)
			}
		})
	}
}

func TestStampede_SaysThatNobodyListens(t *testing.T) {
	t.Parallel()
	_, _, err := stampede(t, "http://127.0.0.1:1", "-settle", "600ms")
	if err == nil || !strings.Contains(err.Error(), "is the shop running at http://127.0.0.1:1?") {
		t.Errorf("%v", err)
	}
}

func TestStampede_Helps(t *testing.T) {
	t.Parallel()
	_, usage, err := stampede(t, "http://127.0.0.1:1", "-h")
	if !errors.Is(err, flag.ErrHelp) || !strings.Contains(usage, "-duplicates") {
		t.Errorf("%v, %s", err, usage)
	}
}

//nolint:paralleltest // it sets the environment
func TestStampede_ReadsTheEnvironment(t *testing.T) {
	t.Setenv("STAMPEDE_USERS", "77")
	t.Setenv("STAMPEDE_CONNS", "7")
	cfg, err := parse([]string{"-conns", "8"}, &bytes.Buffer{})
	if err != nil || cfg.users != 77 || cfg.conns != 8 {
		t.Errorf("%+v, %v", cfg, err)
	}
}
