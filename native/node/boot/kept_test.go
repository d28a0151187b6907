package boot

import (
	"os"
	"strings"
	"testing"
)

func TestMounted(t *testing.T) {
	if err := mounted("/"); err != nil {
		t.Error(err)
	}
	if err := mounted(t.TempDir()); err == nil {
		t.Error("a folder is no mount")
	}
}

func TestOwnable(t *testing.T) {
	folder := t.TempDir()
	numbers, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	may := os.Geteuid() == 0 && !strings.HasSuffix(string(numbers), " 1\n") // as root, of a namespace of others too
	if err := ownable(folder); may != (err == nil) {
		t.Errorf("it may: %v, %v", may, err)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
		t.Errorf("it leaves %v, %v", entries, err)
	}
}

// What is bound over another folder lies in none that is made anew after it.
func TestKeptFoldersStandApart(t *testing.T) {
	names := map[string]bool{}
	for _, each := range kept {
		if names[each.name] || strings.Contains(each.name, "/") {
			t.Errorf("%s is there twice, or is no name", each.name)
		}
		names[each.name] = true
		if strings.HasPrefix(each.path+"/", Kept+"/") {
			t.Errorf("%s lies in %s", each.path, Kept)
		}
	}
}
