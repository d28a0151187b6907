package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Exit statuses of curl(1).
const (
	badUsage  = 2
	noHost    = 6
	noConnect = 7
	notOK     = 22
	timedOut  = 28
	noAnswer  = 52
)

type transfer struct {
	connect, most          float64
	device, out, write     string
	method, data           string
	headers                []string
	shown, head, insecure  bool
	follow, fail, silently bool
}

// curl fetches one URL and prints its body. Options that change nothing here are taken and ignored.
func curl(words []string) error {
	var one transfer
	flags := pflag.NewFlagSet("curl", pflag.ContinueOnError)
	flags.Float64Var(&one.connect, "connect-timeout", 0, "")
	flags.Float64VarP(&one.most, "max-time", "m", 0, "")
	flags.StringVar(&one.device, "interface", "", "")
	flags.StringVarP(&one.out, "output", "o", "", "")
	flags.StringVarP(&one.write, "write-out", "w", "", "")
	flags.StringVarP(&one.method, "request", "X", "", "")
	flags.StringVarP(&one.data, "data", "d", "", "")
	flags.StringArrayVarP(&one.headers, "header", "H", nil, "")
	flags.BoolVarP(&one.shown, "include", "i", false, "")
	flags.BoolVarP(&one.head, "head", "I", false, "")
	flags.BoolVarP(&one.insecure, "insecure", "k", false, "")
	flags.BoolVarP(&one.follow, "location", "L", false, "")
	flags.BoolVarP(&one.fail, "fail", "f", false, "")
	flags.BoolVarP(&one.silently, "silent", "s", false, "")
	for name, short := range map[string]string{"disable": "q", "globoff": "g", "show-error": "S", "verbose": "v"} {
		flags.BoolP(name, short, false, "")
	}
	if err := flags.Parse(words); err != nil {
		return failure{badUsage, err}
	}
	if flags.NArg() != 1 {
		return failure{badUsage, fmt.Errorf("expected one URL, got %q", flags.Args())}
	}
	url := flags.Arg(0)
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	err := one.fetch(url)
	if err != nil && one.silently && !flags.Changed("show-error") {
		return failure{statusOf(err), errors.New("")}
	}
	if err != nil {
		return failure{statusOf(err), err}
	}
	return nil
}

func statusOf(err error) int {
	var known failure
	var name *net.DNSError
	var timeout net.Error
	var operation *net.OpError
	switch {
	case errors.As(err, &known):
		return known.status
	case errors.As(err, &name):
		return noHost
	case errors.As(err, &timeout) && timeout.Timeout():
		return timedOut
	case errors.As(err, &operation) && operation.Op == "dial":
		return noConnect
	}
	return noAnswer
}

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }

func (t transfer) client() (*http.Client, error) {
	dialer := &net.Dialer{Timeout: seconds(t.connect)}
	if t.device != "" {
		address, err := addressOf(t.device)
		if err != nil {
			return nil, err
		}
		dialer.LocalAddr = &net.TCPAddr{IP: address}
	}
	client := &http.Client{
		Timeout: seconds(t.most),
		Transport: &http.Transport{
			DialContext:        dialer.DialContext,
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: t.insecure},
			DisableCompression: true,
		},
	}
	if !t.follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return client, nil
}

// addressOf is the address that --interface means: one by itself, or the first of an interface.
func addressOf(device string) (net.IP, error) {
	if address := net.ParseIP(device); address != nil {
		return address, nil
	}
	one, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	addresses, err := one.Addrs()
	if err != nil {
		return nil, err
	}
	for _, each := range addresses {
		if address, _, err := net.ParseCIDR(each.String()); err == nil {
			return address, nil
		}
	}
	return nil, fmt.Errorf("%s has no address", device)
}

func (t transfer) request(url string) (*http.Request, error) {
	method := t.method
	switch {
	case method != "":
	case t.head:
		method = http.MethodHead
	case t.data != "":
		method = http.MethodPost
	default:
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(t.data))
	if err != nil {
		return nil, failure{badUsage, err}
	}
	request.Header.Set("User-Agent", "curl/8.0.0")
	for _, each := range t.headers {
		name, value, _ := strings.Cut(each, ":")
		request.Header.Set(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return request, nil
}

func (t transfer) fetch(url string) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	request, err := t.request(url)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		if t.write != "" {
			fmt.Print(strings.ReplaceAll(t.write, "%{http_code}", "000"))
		}
		return err
	}
	defer answer.Body.Close()
	if t.fail && answer.StatusCode >= http.StatusBadRequest {
		return failure{notOK, fmt.Errorf("the server answered %s", answer.Status)}
	}
	return t.print(answer)
}

func (t transfer) print(answer *http.Response) error {
	out := io.Writer(os.Stdout)
	if t.out != "" {
		file, err := os.Create(t.out)
		if err != nil {
			return err
		}
		defer file.Close()
		out = file
	}
	if t.shown || t.head {
		fmt.Fprintf(out, "%s %s\r\n", answer.Proto, answer.Status)
		if err := answer.Header.Write(out); err != nil {
			return err
		}
		fmt.Fprint(out, "\r\n")
	}
	if _, err := io.Copy(out, answer.Body); err != nil {
		return err
	}
	if t.write != "" {
		code := fmt.Sprint(answer.StatusCode)
		fmt.Print(strings.NewReplacer("%{http_code}", code, `\n`, "\n").Replace(t.write))
	}
	return nil
}
