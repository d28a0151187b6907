package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// hostPorts is the content of a file of the host port folder. The node's
// Service proxy watches that folder and listens for what it holds.
type hostPorts struct {
	attachment
	Address  netip.Addr    `json:"address"`
	Mappings []portMapping `json:"mappings"`
}

// writeHostPorts publishes the mappings of a pod; containers without host
// ports arrive with mappings whose HostPort is 0.
func writeHostPorts(folder string, id attachment, address netip.Addr, mappings []portMapping) error {
	content := hostPorts{attachment: id, Address: address}
	for _, m := range mappings {
		if m.HostPort > 0 {
			m.Protocol = strings.ToLower(m.Protocol)
			content.Mappings = append(content.Mappings, m)
		}
	}
	if len(content.Mappings) == 0 {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return writeFile(hostPortFile(folder, id), content)
}

func removeHostPorts(folder string, id attachment) error {
	return removeFile(hostPortFile(folder, id))
}

func hostPortFile(folder string, id attachment) string {
	return filepath.Join(folder, id.ContainerID+"-"+id.IfName+".json")
}
