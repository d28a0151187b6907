package components

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	kubeletscheme "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"

	"sandkube/node/settings"
)

// Files of a user's settings, each there if it is needed. Parts of configurations are put over the node's own by kubelet and
// containerd themselves.
const (
	kubeletFolder    = "/run/sandkube/kubelet.d"
	containerdFolder = "/run/sandkube/containerd.d" // which the template of its configuration imports
	auditPolicy      = "/run/sandkube/audit.yaml"
	encryptionFile   = "/run/sandkube/encryption.yaml"
)

// Configure writes them.
func Configure(from settings.Settings) error {
	return errors.Join(
		configureKubelet(from.Kubelet.Configuration, kubeletFolder),
		write(filepath.Join(containerdFolder, "settings.toml"), from.Containerd.Configuration),
		write(auditPolicy, from.Audit.Policy),
		write(encryptionFile, from.Encryption.Configuration),
	)
}

// write makes a file, and its folder, if there is a text.
func write(path, text string) error {
	if text == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

func configureKubelet(part map[string]any, folder string) error {
	if len(part) == 0 {
		return nil
	}
	data, err := kubeletPart(part)
	if err != nil {
		return err
	}
	return write(filepath.Join(folder, "settings.conf"), string(data))
}

func kubeletPart(part map[string]any) ([]byte, error) {
	whole := map[string]any{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
	maps.Copy(whole, part)
	return json.Marshal(whole) // which is YAML as well
}

// checkKubelet decodes a part of a KubeletConfiguration strictly, as the kubelet does before it only logs what is wrong.
func checkKubelet(part map[string]any) error {
	data, err := kubeletPart(part)
	if err != nil {
		return err
	}
	_, codecs, err := kubeletscheme.NewSchemeAndCodecs(serializer.EnableStrict)
	if err != nil {
		return err
	}
	_, _, err = codecs.UniversalDecoder().Decode(data, nil, nil)
	return err
}

// encryptionArguments are those by which the API server encrypts what it stores.
func encryptionArguments(from settings.Encryption) ([]string, error) {
	path := encryptionFile
	switch {
	case from.Secrets:
		path = filepath.Join(PKI, "encryption.yaml")
		if err := ownKey(path); err != nil {
			return nil, err
		}
	case from.Configuration == "":
		return nil, nil
	}
	return []string{"--encryption-provider-config=" + path}, nil
}

const encryptSecrets = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - secretbox: {keys: [{name: node, secret: %s}]}
      - identity: {}
`

// ownKey makes the node's own key, once: what was encrypted with it is lost without it.
func ownKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // which never fails (Go 1.24)
	return write(path, fmt.Sprintf(encryptSecrets, base64.StdEncoding.EncodeToString(key)))
}
