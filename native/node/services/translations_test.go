package services

import (
	"reflect"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Of all that is served the kernel may do what it does just as well: the rest is the proxy's.
func TestTranslations(t *testing.T) {
	node := twoNodes()
	pods, split := targets("10.88.0.2:8080", "10.88.1.2:8080"), []Choice{{node.Others[0].Pods, targets("10.88.1.2:8080")}}
	place := at(v1.ProtocolTCP, "10.96.0.7:80")
	all := []Choice{{Endpoints: pods}}
	for name, each := range map[string]struct {
		rule rule
		want []Translation
	}{
		"pods":          {rule{"", place, pods, 0, nil, nil}, []Translation{{place[0].Address, all}}},
		"affinity":      {rule{"", place, pods, time.Minute, nil, nil}, nil},
		"some clients":  {rule{"", place, pods, 0, prefixes("10.88.0.2/32"), nil}, nil},
		"UDP":           {rule{"", at(v1.ProtocolUDP, "10.96.0.7:80"), pods, 0, nil, nil}, nil},
		"no endpoints":  {rule{"", place, nil, 0, nil, nil}, nil},
		"the node":      {rule{"", place, targets("10.88.0.2:8080", "10.88.0.1:8080"), 0, nil, nil}, nil},
		"another node":  {rule{"", place, targets("10.88.1.1:8080"), 0, nil, nil}, nil},
		"outside":       {rule{"", place, targets("192.0.2.7:8080"), 0, nil, nil}, nil},
		"another again": {rule{"", place, targets("10.96.0.8:8080"), 0, nil, nil}, nil},
		"node ports": {rule{"", at(v1.ProtocolTCP, "10.88.1.1:30080", "10.88.0.1:30080", "127.0.0.1:30080"), pods, 0, nil, nil}, []Translation{
			{targets("10.88.0.1:30080")[0], all}, {targets("10.88.1.1:30080")[0], all},
		}},
		"clients with endpoints of their own": {rule{"", place, nil, 0, nil, split}, []Translation{
			{place[0].Address, []Choice{split[0], {}}},
		}},
	} {
		if got := (state{Rules: []rule{each.rule}}).translations(node); !reflect.DeepEqual(got, each.want) {
			t.Errorf("%s: %v, want %v", name, got, each.want)
		}
	}
}
