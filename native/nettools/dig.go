package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const resolvConf = "/etc/resolv.conf"

// question is what dig is asked.
type question struct {
	name, server       string
	kind               uint16
	tcp, search, short bool
}

func parse(words []string) (question, error) {
	one := question{kind: dns.TypeA}
	for _, each := range words {
		kind, isKind := dns.StringToType[strings.ToUpper(each)]
		switch {
		case strings.HasPrefix(each, "+"):
			if err := one.option(each); err != nil {
				return one, err
			}
		case strings.HasPrefix(each, "@"):
			one.server = each[1:]
		case strings.HasPrefix(each, "-"):
			return one, failure{1, fmt.Errorf("unknown option %s", each)}
		case isKind && one.name != "":
			one.kind = kind
		default:
			one.name = each
		}
	}
	if one.name == "" {
		return one, failure{1, errors.New("expected a name")}
	}
	return one, nil
}

func (q *question) option(word string) error {
	switch word {
	case "+tcp":
		q.tcp = true
	case "+search":
		q.search = true
	case "+short":
		q.short = true
	case "+notcp", "+noall", "+answer", "+nosearch": // as it is without
	default:
		return failure{1, fmt.Errorf("unknown option %s", word)}
	}
	return nil
}

// dig asks the pod's name server and prints the answer section, as +noall +answer or +short do.
func dig(words []string) error {
	one, err := parse(words)
	if err != nil {
		return err
	}
	config, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return err
	}
	if one.server == "" {
		if len(config.Servers) == 0 {
			return failure{9, fmt.Errorf("%s names no server", resolvConf)}
		}
		one.server = config.Servers[0]
	}
	names := []string{dns.Fqdn(one.name)}
	if one.search {
		names = config.NameList(one.name)
	}
	for _, name := range names {
		answer, err := one.ask(name, net.JoinHostPort(one.server, config.Port))
		if err != nil {
			return failure{9, err}
		}
		if len(answer.Answer) > 0 {
			one.print(answer)
			return nil
		}
	}
	return nil
}

func (q question) ask(name, server string) (*dns.Msg, error) {
	client := &dns.Client{Timeout: 5 * time.Second}
	if q.tcp {
		client.Net = "tcp"
	}
	message := new(dns.Msg).SetQuestion(name, q.kind)
	answer, _, err := client.Exchange(message, server)
	if err == nil && answer.Truncated && !q.tcp {
		client.Net = "tcp"
		answer, _, err = client.Exchange(message, server)
	}
	return answer, err
}

func (q question) print(answer *dns.Msg) {
	for _, each := range answer.Answer {
		if q.short {
			fmt.Println(strings.TrimPrefix(each.String(), each.Header().String()))
		} else {
			fmt.Println(each)
		}
	}
}
