package components

import (
	"os"

	"k8s.io/client-go/rest"
)

// programs are what components are called elsewhere, where each is one: clients go by these names, and so do field
// managers by default.
var programs = map[string]string{
	"apiserver":          "kube-apiserver",
	"controller-manager": "kube-controller-manager",
	"kubelet":            "kubelet",
	"scheduler":          "kube-scheduler",
}

// NameClients has each client of the API go by the name of its component, of which running is asked, by the goroutine that
// makes the client, with a name for those of none. To be called before the first client is made. (client-go is patched to
// ask.)
func NameClients(running func(fallback string) string) {
	rest.CommandName = func() string {
		if name, ok := programs[running("")]; ok {
			return name
		}
		return os.Args[0]
	}
}
