package main

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// config is the plugin's entry of the network configuration list. Subnet and
// Gateway are required; addresses are leased from Subnet above Gateway. Pods are put on the Bridge where there is one.
// Where there is a Second family a pod has the address of the same number in it.
// ReservedPorts are TCP ports of the Gateway's address that the node itself has: no host port can be one of them.
type config struct {
	types.NetConf
	Subnet        netip.Prefix  `json:"subnet"`
	Gateway       netip.Addr    `json:"gateway"`
	Second        *family       `json:"second"`
	Bridge        string        `json:"bridge"`
	ReservedPorts []int         `json:"reservedPorts"`
	RuntimeConfig runtimeConfig `json:"runtimeConfig"`
}

// family is the network of a cluster of dual stack in IPv6.
type family struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
}

// side is a pod's address of one family, and the gateway's.
type side struct{ address, gateway netip.Addr }

// sides are those of a pod, by its address of the first family.
func (c *config) sides(address netip.Addr) []side {
	all := []side{{address, c.Gateway}}
	if c.Second != nil {
		all = append(all, side{c.second(address), c.Second.Gateway})
	}
	return all
}

// second is the address of the second family that goes with one; invalid if there is none.
func (c *config) second(address netip.Addr) netip.Addr {
	if c.Second == nil {
		return netip.Addr{}
	}
	number := func(one netip.Addr) *big.Int { return new(big.Int).SetBytes(one.AsSlice()) }
	sum := number(c.Second.Subnet.Addr())
	sum.Add(sum, number(address)).Sub(sum, number(c.Subnet.Addr()))
	found, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, 16)))
	return found
}

// runtimeConfig holds what the runtime passes for the capabilities that the
// configuration declares.
type runtimeConfig struct {
	PortMappings []portMapping `json:"portMappings,omitempty"`
}

// portMapping has the field names of the portMappings capability
// (https://www.cni.dev/docs/conventions/). An empty HostIP means every address.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func parseConfig(data []byte) (*config, error) {
	conf := &config{}
	if err := json.Unmarshal(data, conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration", err.Error())
	}
	if !conf.Subnet.IsValid() || !conf.Subnet.Addr().Is4() || conf.Subnet != conf.Subnet.Masked() {
		return nil, invalid("subnet: %q is not an IPv4 network", conf.Subnet)
	}
	if !conf.Subnet.Contains(conf.Gateway) {
		return nil, invalid("gateway: %q is not in %s", conf.Gateway, conf.Subnet)
	}
	if err := conf.validateSecond(); err != nil {
		return nil, err
	}
	if err := version.ParsePrevResult(&conf.NetConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	return conf, nil
}

func (c *config) validateSecond() error {
	if c.Second == nil {
		return nil
	}
	subnet := c.Second.Subnet
	if !subnet.IsValid() || !subnet.Addr().Is6() || subnet != subnet.Masked() || 128-subnet.Bits() < 32-c.Subnet.Bits() {
		return invalid("second: %q is not an IPv6 network as large as %s", subnet, c.Subnet)
	}
	if !subnet.Contains(c.Second.Gateway) {
		return invalid("second: %q is not in %s", c.Second.Gateway, subnet)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

// parsePod reads whose network it is from CNI_ARGS, where containerd says so.
func parsePod(text string) (pod, error) {
	var args struct { // the names are the runtime's
		types.CommonArgs
		K8S_POD_NAMESPACE types.UnmarshallableString
		K8S_POD_NAME      types.UnmarshallableString
		K8S_POD_UID       types.UnmarshallableString
	}
	args.IgnoreUnknown = true
	if err := types.LoadArgs(text, &args); err != nil {
		return pod{}, invalid("CNI_ARGS %q: %v", text, err)
	}
	return pod{string(args.K8S_POD_NAMESPACE), string(args.K8S_POD_NAME), string(args.K8S_POD_UID)}, nil
}
