package services

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func checked(port int32) *v1.Service {
	return testService("10.96.0.7", func(s *v1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy, s.HealthCheckNodePort = v1.ServiceTypeLoadBalancer, v1.ServiceExternalTrafficPolicyLocal, port
	})
}

func TestChecksCountWhatIsReadyOnEachNode(t *testing.T) {
	ending := withConditions("10.88.1.4", false, true, true)
	ending.NodeName = ptr("runsc-2")
	ready := []discovery.Endpoint{onNode("10.88.0.2", "runsc"), onNode("10.88.1.2", "runsc-2"), onNode("10.88.1.3", "runsc-2"), ending}
	slices := []*discovery.EndpointSlice{testSlice(v1.ProtocolTCP, 8080, ready...), testSlice(v1.ProtocolUDP, 53, ready...)}
	got := desired([]*v1.Service{checked(30100)}, slices, nil, twoNodes())
	want := map[string]int{"runsc": 1, "runsc-2": 2}
	if len(got.Checks) != 1 || got.Checks[0].Port != 30100 || !maps.Equal(got.Checks[0].Ready, want) {
		t.Errorf("%+v", got.Checks)
	}
	everywhere := checked(30100)
	everywhere.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyCluster
	if got = desired([]*v1.Service{everywhere}, slices, nil, twoNodes()); len(got.Checks) > 0 {
		t.Errorf("%+v", got.Checks)
	}
}

// health is the status of an answer, and how many endpoints it tells of.
func health(address string) (status, local int, err error) {
	answer, err := http.Get("http://" + address + "/healthz")
	if err != nil {
		return 0, 0, err
	}
	defer answer.Body.Close()
	var said struct {
		Local int `json:"localEndpoints"`
	}
	err = json.NewDecoder(answer.Body).Decode(&said)
	return answer.StatusCode, said.Local, err
}

func TestHealthCheckPort(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	f := start(t, func(p *proxy) { p.node.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	f.createService(checked(int32(port)))
	address := fmt.Sprintf("127.0.0.1:%d", port)
	answers := func(wanted, endpoints int) func() bool {
		return func() bool {
			status, local, err := health(address)
			return err == nil && status == wanted && local == endpoints
		}
	}
	eventually(t, "no endpoint: 503", answers(http.StatusServiceUnavailable, 0))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, onNode("127.88.0.2", "runsc"), onNode("127.88.0.3", "another")))
	eventually(t, "one endpoint here: 200", answers(http.StatusOK, 1))
	f.updateSlice(testSlice(v1.ProtocolTCP, 8080, onNode("127.88.0.3", "another")))
	eventually(t, "none here any more: 503", answers(http.StatusServiceUnavailable, 0))
	if err := f.client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no Service: nobody listens", func() bool { _, _, err := health(address); return err != nil })
}
