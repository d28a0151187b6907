package boot

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func mappedFromFiles(t *testing.T) (kilobytes int) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(data)) {
		for _, kind := range []string{"RssFile", "RssShmem"} { // the second if the test's program is on a tmpfs
			var one int
			if _, err := fmt.Sscanf(line, kind+": %d kB", &one); err == nil {
				kilobytes, found = kilobytes+one, true
			}
		}
	}
	if !found {
		t.Skip("this kernel does not tell")
	}
	return kilobytes
}

func TestTrimGivesTheProgramsPagesBack(t *testing.T) {
	before := mappedFromFiles(t)
	Trim()
	if after := mappedFromFiles(t); after >= before {
		t.Errorf("%d kB are mapped from files, %d before", after, before)
	}
}

func TestOnlyReadOnlyMappingsOfTheProgramAreTrimmed(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00800000 r-xp 00000000 00:13 5 /usr/bin/node\n":  true,
		"00800000-00900000 r--p 00400000 00:13 5 /usr/bin/node\n":  true,
		"00900000-00910000 rw-p 00500000 00:13 5 /usr/bin/node\n":  false,
		"00900000-00910000 r--p 00500000 00:13 5 /usr/bin/other\n": false,
		"00900000-00910000 r--p 00000000 00:00 0\n":                false,
		"7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0 [vdso]\n": false,
		"00800000-00400000 r-xp 00000000 00:13 5 /usr/bin/node\n":  false,
		"nonsense\n": false,
	} {
		start, length, got := readOnly(line, "/usr/bin/node")
		if got != want || want && (start == 0 || length == 0) {
			t.Errorf("%q: %x %x %v", line, start, length, got)
		}
	}
}
