// Command launchbench measures cold launches: of the nodes of examples/ring and
// examples/solo by falcon, and of the same QEMU command lines started by hand,
// one after the other, round by round. It prints a Markdown table.
//
// What falcon is charged for is all of "launch": disks, links, servers, boot,
// login and set-up. What by hand is charged for is nothing but QEMU: from the
// start of the first until the last has printed a prompt. Disks and links are
// ready for it, and it boots the image from fresh disks, too.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 9, "how often to measure each")
	quick := flag.Bool("quick", false, "one and two nodes, three rounds")
	programs := flag.String("programs", "", "`folder` with the programs solo and ring")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	counts := []int{1, 2, 4}
	if *quick {
		counts, *rounds = []int{1, 2}, 3
	}
	if err := bench(ctx, *programs, counts, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "launchbench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, programs string, counts []int, rounds int) error {
	fmt.Println("| nodes | falcon launch | the same QEMU by hand | ratio |")
	fmt.Println("|---|---|---|---|")
	for _, n := range counts {
		ours, byHand, err := compare(ctx, programs, n, rounds)
		if err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		fmt.Printf("| %d | %s | %s | %.2f |\n", n, spread(ours), spread(byHand), ratio(ours, byHand))
	}
	return nil
}

// compare measures falcon and by hand in turns. A first launch that is not
// counted brings the files into the host's memory.
func compare(ctx context.Context, programs string, nodes, rounds int) (ours, byHand []time.Duration, err error) {
	for i := range rounds + 1 {
		a, b, err := round(ctx, programs, nodes)
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(os.Stderr, "%d nodes, round %d: falcon %.2fs, by hand %.2fs\n", nodes, i, a.Seconds(), b.Seconds())
		if i > 0 {
			ours, byHand = append(ours, a), append(byHand, b)
		}
	}
	return ours, byHand, nil
}
