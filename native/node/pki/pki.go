// Package pki makes the certificates of one cluster: a CA of its own, fresh
// at each boot, and what each component needs to prove who it is.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
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
	template, err := base(name, nil, now)
	if err != nil {
		return Pair{}, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	return sign(template, nil)
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
	return sign(template, &ca)
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

// sign makes a key for template and has parent sign it, itself if parent is nil.
func sign(template *x509.Certificate, parent *Pair) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
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

// Write puts NAME.crt and NAME.key into folder.
func (p Pair) Write(folder, name string) error {
	if err := os.WriteFile(filepath.Join(folder, name+".crt"), p.CertificatePEM(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name+".key"), p.KeyPEM(), 0o600)
}
