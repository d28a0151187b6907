// Package pki makes the certificates of one cluster: a CA of its own, and what each component needs to prove who it is.
// A cluster whose data stay finds them at its next boot, and renews what is about to end.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sandkube/node/files"
)

const (
	lifetime = 365 * 24 * time.Hour
	// backdated: a host's clock may be set back by hours, when a machine wakes up or learns its time zone.
	backdated = 24 * time.Hour
)

// Pair is a certificate with its key.
type Pair struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// Subject says whom a certificate is for.
type Subject struct {
	Name      string
	Groups    []string
	Addresses []net.IP // with DNS names: a server's certificate
	DNSNames  []string
	Client    bool
}

// Authority returns a new CA.
func Authority(name string, now time.Time) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	return authority(name, key, now)
}

// authority returns a CA with this key. The certificate's key id is made of the key: chains to an earlier certificate
// lead to this one as well.
func authority(name string, key *ecdsa.PrivateKey, now time.Time) (Pair, error) {
	template, err := base(name, nil, now)
	if err != nil {
		return Pair{}, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	return sign(template, key, nil)
}

// Issue returns a certificate for subject, signed by the CA.
func (ca Pair) Issue(subject Subject, now time.Time) (Pair, error) {
	template, err := base(subject.Name, subject.Groups, now)
	if err != nil {
		return Pair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.IPAddresses, template.DNSNames = subject.Addresses, subject.DNSNames
	if subject.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if len(subject.Addresses)+len(subject.DNSNames) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	return sign(template, key, &ca)
}

func base(name string, groups []string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		NotBefore:    now.Add(-backdated),
		NotAfter:     now.Add(lifetime),
	}, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// sign has parent sign a certificate for a key, itself if parent is nil.
func sign(template *x509.Certificate, key *ecdsa.PrivateKey, parent *Pair) (Pair, error) {
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.Certificate, parent.Key
	}
	data, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate for %s: %w", template.Subject.CommonName, err)
	}
	certificate, err := x509.ParseCertificate(data)
	if err != nil {
		return Pair{}, err
	}
	return Pair{certificate, key}, nil
}

// CertificatePEM returns the certificate alone.
func (p Pair) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate.Raw})
}

// KeyPEM returns the key alone.
func (p Pair) KeyPEM() []byte {
	data, err := x509.MarshalECPrivateKey(p.Key)
	if err != nil {
		panic(err) // P-256 keys always marshal
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: data})
}

// Write puts NAME.crt and NAME.key into folder. The key comes first: a certificate without its key is of no use.
func (p Pair) Write(folder, name string) error {
	if err := files.Replace(filepath.Join(folder, name+".key"), p.KeyPEM(), 0o600); err != nil {
		return err
	}
	return files.Replace(filepath.Join(folder, name+".crt"), p.CertificatePEM(), 0o600)
}

// Read returns what Write wrote. A key that is not the certificate's is an error.
func Read(folder, name string) (Pair, error) {
	certificate, err := os.ReadFile(filepath.Join(folder, name+".crt"))
	if err != nil {
		return Pair{}, err
	}
	key, err := os.ReadFile(filepath.Join(folder, name+".key"))
	if err != nil {
		return Pair{}, err
	}
	return parse(certificate, key)
}

func parse(certificate, key []byte) (Pair, error) {
	both, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return Pair{}, err
	}
	private, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return Pair{}, fmt.Errorf("a key of another kind: %T", both.PrivateKey)
	}
	return Pair{both.Leaf, private}, nil
}

// readKey returns the key alone.
func readKey(folder, name string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(folder, name+".key")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// due says whether a certificate is to be renewed: a third of its life is left, or it has not begun.
func (p Pair) due(now time.Time) bool {
	life := p.Certificate.NotAfter.Sub(p.Certificate.NotBefore)
	return now.Before(p.Certificate.NotBefore) || p.Certificate.NotAfter.Sub(now) < life/3
}

// signed says whether a certificate is this CA's, and says of its subject what is to be said.
func (ca Pair) signed(pair Pair, subject Subject) bool {
	one := pair.Certificate
	return one.CheckSignatureFrom(ca.Certificate) == nil &&
		one.Subject.CommonName == subject.Name &&
		slices.Equal(one.Subject.Organization, subject.Groups) &&
		slices.Equal(one.DNSNames, subject.DNSNames) &&
		slices.EqualFunc(one.IPAddresses, subject.Addresses, net.IP.Equal)
}
