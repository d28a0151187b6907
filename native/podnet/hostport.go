package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hostPorts is the content of a file of the host port folder. The node's
// Service proxy watches that folder and listens for what it holds.
type hostPorts struct {
	attachment
	Address  netip.Addr    `json:"address"`
	Second   netip.Addr    `json:"second,omitzero"`
	Mappings []portMapping `json:"mappings"`
}

// refuseHostPorts tells why the host ports of a pod cannot be served; the runtime shows it among the pod's events.
// A host port is served on the node's addresses, of which loopback is that of all nodes: every other one is somebody else's.
func refuseHostPorts(conf *config) error {
	own := []netip.Addr{conf.Gateway, netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if conf.Second != nil {
		own = append(own, conf.Second.Gateway)
	}
	for _, m := range conf.RuntimeConfig.PortMappings {
		if m.HostPort <= 0 {
			continue
		}
		protocol := strings.ToUpper(m.Protocol)
		if protocol == "TCP" && slices.Contains(conf.ReservedPorts, m.HostPort) {
			return fmt.Errorf("host port %d/TCP is the node's own: choose another, or none and a Service", m.HostPort)
		}
		if m.HostIP == "" {
			continue
		}
		address, err := netip.ParseAddr(m.HostIP)
		if err != nil || !address.IsUnspecified() && !slices.Contains(own, address) {
			return fmt.Errorf(
				"host port %d/%s wants host IP %s, which is no address of the node: it has %s",
				m.HostPort, protocol, m.HostIP, strings.Trim(strings.ReplaceAll(fmt.Sprint(own), " ", " and "), "[]"),
			)
		}
	}
	return nil
}

// writeHostPorts publishes the mappings of a pod; containers without host
// ports arrive with mappings whose HostPort is 0.
func writeHostPorts(folder string, id attachment, conf *config, address netip.Addr) error {
	content := hostPorts{attachment: id, Address: address, Second: conf.second(address)}
	for _, m := range conf.RuntimeConfig.PortMappings {
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
