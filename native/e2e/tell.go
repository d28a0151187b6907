package main

import (
	"encoding/json"
	"os"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// told is one line: how many specs there will be, or how one of them ended.
type told struct {
	Total   int     `json:"total,omitempty"`
	Name    string  `json:"name,omitempty"`
	State   string  `json:"state,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Message string  `json:"message,omitempty"`
	Place   string  `json:"place,omitempty"`
}

// tellTo has a line written for each spec that was run, by each of the processes that share them: a file that is
// opened for appending takes each line whole.
func tellTo(file *os.File) {
	write := func(one told) {
		line, err := json.Marshal(one)
		if err == nil {
			_, err = file.Write(append(line, '\n'))
		}
		if err != nil {
			die(err)
		}
	}
	ginkgo.ReportBeforeSuite(func(report ginkgo.Report) {
		write(told{Total: report.PreRunStats.SpecsThatWillRun})
	})
	ginkgo.ReportAfterEach(func(report ginkgo.SpecReport) {
		ran := report.State.Is(types.SpecStateFailureStates|types.SpecStatePassed) || report.Failure.Message != ""
		if !ran { // it was filtered out
			return
		}
		write(told{
			Name:    report.FullText(),
			State:   report.State.String(),
			Seconds: report.RunTime.Seconds(),
			Message: report.Failure.Message,
			Place:   report.Failure.Location.String(),
		})
	})
}
