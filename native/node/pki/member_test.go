package pki

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func TestAMemberHasNoAuthority(t *testing.T) {
	folder, target := made(t), filepath.Join(t.TempDir(), "pki")
	own := names
	own.Node, own.NodeAddress = "runsc-2", net.IPv4(10, 88, 1, 1)
	if err := Member(folder, target, address, own, now); err != nil {
		t.Fatal(err)
	}
	var files []string
	entries, err := os.ReadDir(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range entries {
		files = append(files, each.Name())
	}
	slices.Sort(files)
	if want := []string{"ca.crt", "kubelet.crt", "kubelet.key", "node.kubeconfig"}; !slices.Equal(files, want) {
		t.Errorf("it has %v", files)
	}
	ca, err := Read(folder, CA)
	if err != nil {
		t.Fatal(err)
	}
	kubelet, err := Read(target, Kubelet)
	if err != nil || !ca.signed(kubelet, own.servers()[Kubelet]) {
		t.Errorf("the kubelet's certificate: %v, %v", kubelet.Certificate.Subject, err)
	}
	client, err := readKubeconfig(kubeconfigPath(target, NodeClient), NodeClient)
	if err != nil || !ca.signed(client, own.clients()[NodeClient]) || client.Certificate.Subject.CommonName != "system:node:runsc-2" {
		t.Errorf("the kubelet's client: %v", err)
	}
	config, err := clientcmd.LoadFromFile(kubeconfigPath(target, NodeClient))
	if err != nil || config.Clusters["sandkube"].Server != address {
		t.Errorf("%v, %v", config, err)
	}
	if err := Member(t.TempDir(), target, address, own, now); !os.IsNotExist(err) {
		t.Errorf("without an authority: %v", err)
	}
}
