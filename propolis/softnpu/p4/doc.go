// Package p4 compiles programs in P4_16 and runs packets through them.
//
// It is an engine for the package SoftNPU: a parser, an ingress control, an egress control and, if the program wants one, a
// deparser. It needs nothing else of its module.
//
//	p, err := p4.CompileFile("switch.p4")
//	…
//	pl, err := p.New(5) // ports 0 to 4, and port 0 is by custom that of the CPU
//	…
//	err = pl.Add("ingress.router.rtr", p4.Entry{…})
//	reason := pl.Process(port, frame, func(port uint16, frame []byte) { … })
//
// [Compile] gives [Diagnostics] with file, line, column and the line itself, and goes on after an error to find more. What
// is not supported is an error too, and nothing of a program is left out silently. A compiled program is closures over
// numbered slots: no name is looked up when a packet comes, and a packet costs no allocation. Tables and externs can be
// read and changed while packets are processed.
//
// # What the switch does
//
// The parser has the parameters (packet_in, out H, inout I), or only the first two, and both controls have
// (inout H, inout I, inout E), where H are the headers and I and E the metadata of ingress and egress, structs of the
// program's own. These of their fields mean something, if they are there:
//
//	I.port       the port that the packet came in by
//	E.port       the port that it is to leave by
//	E.drop       that it is to be dropped
//	E.broadcast  that it is to leave by all ports but the one that it came in by
//
// A packet that the parser rejects is dropped; so is one whose E.port was never assigned to, which is not the same as port
// 0. Egress runs once for each port that the packet leaves by, with a copy of everything and with E.port set to that port;
// it can drop the copy, and cannot send it elsewhere. A port that the switch does not have is given out as any other: what
// it means is up to the caller.
//
// Without a deparser of its own a program emits all valid headers in the order of the struct H, and then the payload. That
// begins in the packet behind as many bits as the headers in H have that are valid after the parser, and behind what the
// parser went over by advance. So a header that was extracted into the metadata alone is still in the packet. With a
// deparser, SoftNPU(parse(), ingress(), egress(), deparse()), the payload begins where the parser stopped reading.
//
// # The language
//
// All of P4_16 that a SoftNPU program can mean something by, with bit<W>, int<W> and varbit<W> up to 2048 bits, types of
// their own, header stacks and unions, tuples, generic types, functions and actions, slices [hi:lo] and [lo+:width], whose
// begin may be worked out by the program, select with masks, ranges, sets and value sets, switch, for with break and
// continue, exit, functions, sub-parsers, and tables with exact, lpm, ternary, range and optional keys.
//
// These parts of P4_16 are not there, and are errors:
//
//   - bit<0> and widths above 2048, and a width with < or > in it that is not in parentheses
//   - list<T>, values of the type match_kind, and values of the type int that are no constants
//   - _ as a type that follows from the arguments, but for that of an extern's index
//   - arrays and stacks T[n] of anything but headers and header unions, and a list as the value of one
//   - "..." as a first value, and a list as both values of ?:
//   - headers with two varbit fields
//   - strings that go over several lines or are put together with ++
//   - declarations of a struct where a type is wanted
//   - generic controls and parsers with a body, and generic packages
//   - parsers, controls and packages as parameters and as arguments of constructors, and arrays of instances
//   - instances with functions of their own, that is of abstract externs, and this
//   - a typedef of an extern as the type of an instance or of a parameter
//   - functions and controls of one name with different parameters; externs may have them
//   - a function of the program, and the comparison of two lists, as part of a constant
//   - select on a list or a struct, and switch on a string
//   - lookahead of a type with a stack, a union, a varbit, an error or an enum without values in it
//   - headers, unions, stacks, tuples and errors as parameters that an entry sets, and as cells of a register
//   - the unary operators of an enum with values, which the binary ones take for its number
//   - a register whose cells begin as something else than zero
//   - value sets outside of parsers
//   - match kinds of the program's own and selector, the table properties implementation, meters and those that are not
//     named here (key, actions, entries, default_action, size, counters, psa_direct_counter, and support_timeout,
//     psa_idle_timeout, largest_priority_wins and priority_delta with the values that change nothing)
//   - all externs that are not listed below, and so all that they are for: clones, recirculation, digests, action profiles
//   - packages that are not SoftNPU
//
// Of annotations @name of a key, @tableonly, @defaultonly, @priority of an entry and @match of a field or value set mean
// something. All others are read and mean nothing; @atomic and @hidden have nothing to change here, and a parameter that is
// @optional is not.
//
// A value set is known by a name like that of a table. It is one, whose entries are its members and have the action
// "member". A struct that an entry sets is a parameter for each of its fields, as in "hop.port".
//
// What is computed has its effects once and when its turn comes: an index on the left of an assignment before the right
// side, and arguments from left to right.
//
// A version before this one let through what is an error now: values of a type that was declared by the word type where
// those of another are wanted, or made of a struct; a switch with two defaults or with a label behind its default;
// @defaultonly in entries and @tableonly as the default action of a program; entries before the key; a name in code that
// hides a parameter, which only members of a control or parser may, with a warning; select() of nothing; and @priority with
// something else than one number. @priority was of no effect.
//
// The preprocessor has #include, #define with and without parameters, #undef, #if, #ifdef, #ifndef, #elif, #else, #endif,
// #error and #warning. An included file is looked for in the include folders and next to the file that asks, that one
// first if its name is in quotes. core.p4 and softnpu.p4 are built in for programs that do not bring their own. A file is
// included once, however often it is asked for.
//
// Without any declaration a program has the errors and NoAction of core.p4, and these externs:
//
//	Checksum          run(data): the ones-complement checksum of the bits of data, one value behind the other
//	InternetChecksum  clear, add, subtract, get, get_state, set_state
//	Register          read, write; also as register, whose read has the result as its first argument
//	Counter, counter  count(index)
//	DirectCounter     count(), in an action of the table that names it in its property counters; also as direct_counter
//	Meter, meter      execute(index), execute_meter(index, color): RFC 2698 without colors coming in
//	Hash              get_hash(data), get_hash(base, data, max): crc32, crc16, csum16, xor16, identity
//	hash, random      the functions of v1model
//	Random            read()
//	Replicate         replicate(ports): see below
//	verify, static_assert
//
// Each entry of a table counts its packets and bytes, whether or not the table has a direct counter.
//
// The ports of Replicate are the bits of a bit<128>, where bit n is port n. If one is set the packet leaves by those that the
// switch has, whatever E.port and E.broadcast say, but not by the one that it came in by; E.drop drops it all the same. As
// in the branch of x4c that has it, replicate is called once, in the apply block of the ingress control and in no block
// within it, with an argument that is made of the metadata alone, and what counts is what that is once ingress is done.
//
// # Where it is like x4c and not like P4_16
//
// Programs for x4c, the compiler that SoftNPU's own programs are written for, load unchanged and forward as they do
// there. For that:
//
//   - An out parameter begins with the value that its argument has. P4 leaves the value open, and programs rely on it. The
//     headers in it begin invalid all the same, as P4 has it.
//   - A transition may stand in the body of an if, and is taken at once.
//   - The default action of a table need not be among its actions. A warning says so.
//   - A bit<W> is widened where a larger one is assigned or compared. A warning says so.
//   - An action may assign to the parameters that an entry sets.
//   - A control, a table, an action and an instance may have one name in one place: what is meant follows from where it
//     stands.
//   - Globals and the members of a control may be used before they are declared, and a comma may follow the last
//     parameter or argument.
//   - I.drop means nothing.
//
// # Where it is not like x4c
//
//   - A packet that ends within a header is dropped. x4c stops the process.
//   - A field of any width and place goes into the packet as it came out of it. x4c spoils fields of more than 8 bits whose
//     width is neither a multiple of 8 nor 4 more than one, such as the fragment offset of IPv4.
//   - Checksum.run is a true ones-complement checksum. That of x4c folds no carry, so paths that are chosen by it differ, and
//     so do checksums that a program writes into packets.
//   - A parameter of more than 8 bits whose width is no multiple of 8 has the value that it was given. x4c misreads a VLAN
//     above 255.
//   - An entry that is there already is refused. x4c keeps the first and says nothing.
//   - Copies of a broadcast do not see the changes that egress made to the metadata for another copy.
//   - An E.port that was not assigned to reads as 0, and not as a number without bits that equals nothing.
//   - A division or remainder by zero drops the packet. x4c stops the process.
//   - Constant entries for IPv4 prefixes match, entries have priorities, and an action of a constant entry has its name.
//   - Arguments are checked, in number and type, and so are the names of fields in conditions.
//
// # Where P4_16 leaves it open
//
// A variable without a value, and a field of a header that is not valid, read as zero or as what was last assigned to them
// for this packet, never as anything of another packet. An index that is out of bounds reads as an invalid header, and
// writes to it go nowhere; that of a register reads as zero. Among entries of a table with ternary or range keys the larger
// priority wins, and of the entries in the program the first, or that with the smallest @priority, where one without has its
// place among them, counted from 1. A packet that goes through more than 4096 states of its parsers is dropped, and so is
// one that goes through more than 65536 rounds of the loops of one block. A slice [lo+:width] that reaches beyond its number
// reads as zero there and is not written. A hash of more than 64 bits is one of 64 with zeros above it, and the identity of
// more than 8 bytes is the first 8 of them, as BMv2 has it.
package p4
