// Command penstock-producer is the ingress: it accepts inference tasks over
// HTTP and writes them to Kafka.
package main

import (
	"os"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/producer"
)

func main() { os.Exit(lifecycle.Main(producer.Main)) }
