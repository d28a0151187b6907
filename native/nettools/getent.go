package main

import (
	"errors"
	"fmt"
	"net"
)

// getent prints addresses of names as its databases hosts and ahosts have them: from /etc/hosts, then from DNS.
func getent(words []string) error {
	if len(words) < 2 || (words[0] != "hosts" && words[0] != "ahosts") {
		return failure{1, errors.New("usage: getent hosts|ahosts NAME, one or several")}
	}
	missing := false
	for _, name := range words[1:] {
		found, err := net.LookupHost(name)
		missing = missing || err != nil
		for _, address := range found {
			fmt.Printf("%-15s %s\n", address, name)
		}
	}
	if missing {
		return failure{2, errors.New("")}
	}
	return nil
}
