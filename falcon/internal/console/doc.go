// Package console works a guest through its serial console, which is nothing
// but a byte stream shared with the kernel, with whatever the guest runs, and
// with people.
//
// A [Console] reads the stream. It waits for lines ([Console.WaitLine]), logs
// in ([Console.Login]) and runs commands ([Console.Exec]) with their exact
// output and exit status. [Attach] joins a person's terminal to a stream.
//
// # How a command is run
//
// Exec types one short line at the prompt. It starts a subshell, which reports
// itself and then reads the real script from the terminal in short lines that
// it acknowledges; nothing runs until every byte of it has arrived. The script
// runs the command in a sh of its own with /dev/null as its input, takes the
// output in pieces as it appears, and prints each piece encoded, followed by a
// record with its length and checksum. Records start with a byte that a
// terminal never echoes as such and carry a random identifier, so neither the
// echo nor earlier output nor the command itself can be taken for one. Kernel
// messages that fall into the middle are removed ([Decoder]); what cannot be
// restored to the checksum is an error, never output. A command whose output is
// of no interest can be run for its status alone (Command.Direct).
//
// No terminal setting is touched, no file is written, and the console's shell
// keeps its folder, variables and options.
package console
