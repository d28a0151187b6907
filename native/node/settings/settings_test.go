package settings

import (
	"slices"
	"strings"
	"testing"

	"sandkube/node/cluster"
)

func TestNothingIsSetByNothing(t *testing.T) {
	for _, text := range []string{"", "{}"} {
		found, err := Read(strings.NewReader(text))
		if err != nil || found.Of(cluster.Default) != cluster.Default || !found.Seeded() {
			t.Errorf("%q: %+v, %v", text, found, err)
		}
	}
}

func TestWhatIsSet(t *testing.T) {
	found, err := Read(strings.NewReader(`{"cluster": {"pods": "10.1.0.0/16", "services": "10.2.0.0/24", "load-balancers": "10.3.0.0/24", "domain": "a.test", "api-port": 7443}, "node": {"name": "one"}, "sandbox": {"memory": 1073741824, "pids": 0}, "egress": {"enabled": true}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := found.Of(cluster.Default)
	got := []string{c.NodeName, c.Domain, c.Pods.String(), c.NodeAddress.String(), c.Services.String(), c.API.String(), c.DNS.String(), c.LoadBalancers.String()}
	want := []string{"one", "a.test", "10.1.0.0/16", "10.1.0.1", "10.2.0.0/24", "10.2.0.1", "10.2.0.10", "10.3.0.0/24"}
	if !slices.Equal(got, want) || c.APIPort != 7443 || c.Memory != 1<<30 || c.Outside != cluster.NamesOutside || found.Seeded() {
		t.Errorf("%v, memory %d, seeded %v", got, c.Memory, found.Seeded())
	}
}

func TestWhatIsNotRead(t *testing.T) {
	for text, want := range map[string]string{
		`{"pods": "10.1.0.0/16"}`:           `settings: json: unknown field "pods"`,
		`{"cluster": {"pods": "10.1.0.0"}}`: "no '/'",
		`{} {}`:                             "settings: something follows the document",
		`{"disable": ["dns"]`:               "settings: unexpected EOF",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSeeded(t *testing.T) {
	for text, want := range map[string]bool{
		`{"cluster": {"pods": "10.1.0.0/16", "domain": "a.test"}}`: true,
		`{"cluster": {"services": "10.96.0.0/16"}}`:                true,
		`{"cluster": {"services": "10.96.0.0/17"}}`:                false,
		`{"disable": ["services"]}`:                                true,
		`{"disable": ["dns"]}`:                                     false,
		`{"encryption": {"secrets": true}}`:                        true,
		`{"encryption": {"configuration": "kind: X"}}`:             false,
	} {
		found, err := Read(strings.NewReader(text))
		if err != nil || found.Seeded() != want {
			t.Errorf("%s: %v, %v", text, found.Seeded(), err)
		}
	}
}

func TestArguments(t *testing.T) {
	own := []string{"--a=1", "--b=2", "--abc=3", "--flag"}
	got := Arguments(own, []string{"--a=9", "--new", "--flag=false", "--a=8"})
	if want := []string{"--b=2", "--abc=3", "--a=9", "--new", "--flag=false", "--a=8"}; !slices.Equal(got, want) {
		t.Error(got)
	}
	if !slices.Equal(own, []string{"--a=1", "--b=2", "--abc=3", "--flag"}) {
		t.Error(own)
	}
}

func TestAssigned(t *testing.T) {
	if got := Assigned(map[string]bool{"B": false, "A": true}); got != "A=true,B=false" {
		t.Error(got)
	}
	if got := Labelled(map[string]string{"x.y/z": "1", "a": ""}); got != "a=,x.y/z=1" {
		t.Error(got)
	}
}
