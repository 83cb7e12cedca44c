package qemu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// uefiProgram is a UEFI application that prints "guest up" on COM1 and, on
// the byte p, powers off through ACPI. It uses no service of the firmware:
//
//	       lea rsi,[rip+hello]; cld
//	puts:  lodsb; test al,al; jz wait; mov dx,0x3f8; out dx,al; jmp puts
//	wait:  mov dx,0x3fd; in al,dx; test al,1; jz wait
//	       mov dx,0x3f8; in al,dx; cmp al,'p'; jne wait
//	       mov dx,0x604; mov ax,0x2000; out dx,ax; jmp wait
//	hello: db "guest up\r\n",0
func uefiProgram() []byte {
	code := []byte{
		0x48, 0x8d, 0x35, 0x2b, 0x00, 0x00, 0x00, 0xfc, 0xac, 0x84, 0xc0, 0x74,
		0x07, 0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf4, 0x66, 0xba, 0xfd, 0x03,
		0xec, 0xa8, 0x01, 0x74, 0xf7, 0x66, 0xba, 0xf8, 0x03, 0xec, 0x3c, 0x70,
		0x75, 0xee, 0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef,
		0xeb, 0xe2, 0x67, 0x75, 0x65, 0x73, 0x74, 0x20, 0x75, 0x70, 0x0d, 0x0a,
		0x00,
	}
	return portableExecutable(code)
}

// portableExecutable wraps position-independent code as a PE32+ application
// for UEFI of two 512-byte blocks: headers and code.
func portableExecutable(code []byte) []byte {
	const (
		block  = 512
		page   = 4096
		header = 0x40 // of the PE signature
		option = header + 24
		table  = option + 240
	)
	image := make([]byte, 2*block)
	le := binary.LittleEndian
	copy(image, "MZ")
	le.PutUint32(image[0x3c:], header)
	copy(image[header:], "PE\x00\x00")
	coff := image[header+4:]
	le.PutUint16(coff[0:], 0x8664) // x86-64
	le.PutUint16(coff[2:], 1)      // sections
	le.PutUint16(coff[16:], table-option)
	le.PutUint16(coff[18:], 0x22) // executable, large addresses
	opt := image[option:]
	le.PutUint16(opt[0:], 0x20b) // PE32+
	le.PutUint32(opt[4:], block) // size of code
	le.PutUint32(opt[16:], page) // entry point
	le.PutUint32(opt[20:], page) // base of code
	le.PutUint32(opt[32:], page) // section alignment
	le.PutUint32(opt[36:], block)
	le.PutUint32(opt[56:], 2*page) // size of the image
	le.PutUint32(opt[60:], block)  // size of the headers
	le.PutUint16(opt[68:], 10)     // EFI application
	le.PutUint32(opt[108:], 16)    // data directories, all empty
	section := image[table:]
	copy(section, ".text")
	le.PutUint32(section[8:], block)
	le.PutUint32(section[12:], page)
	le.PutUint32(section[16:], block)
	le.PutUint32(section[20:], block)
	le.PutUint32(section[36:], 0x60000020) // code, executable, readable
	copy(image[block:], code)
	return image
}

// fatImage returns a FAT12 file system of 1.44 MB with uefiProgram as
// /EFI/BOOT/BOOTX64.EFI. A cluster is a sector; the first three hold the two
// folders and the program's first half.
func fatImage() []byte {
	const (
		sector  = 512
		fatSize = 9
		rootDir = 1 + 2*fatSize
		data    = rootDir + 14 // cluster 2
	)
	le := binary.LittleEndian
	image := make([]byte, 2880*sector)
	copy(image, "\xeb\x3c\x90FALCON  ")
	le.PutUint16(image[11:], sector)
	image[13], image[14], image[16] = 1, 1, 2 // sectors a cluster, reserved; FATs
	le.PutUint16(image[17:], 224)             // root entries
	le.PutUint16(image[19:], 2880)
	image[21] = 0xf0
	le.PutUint16(image[22:], fatSize)
	le.PutUint16(image[24:], 18)
	le.PutUint16(image[26:], 2)
	image[38] = 0x29
	copy(image[43:], "FALCON     FAT12   ")
	image[510], image[511] = 0x55, 0xaa
	for fat := 1; fat < rootDir; fat += fatSize {
		// Entries of 12 bits: media, end, end (EFI), end (BOOT), 5, end.
		copy(image[fat*sector:], []byte{0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x05, 0xf0, 0xff})
	}
	entry := func(at int, name string, attributes byte, cluster uint16, size int) {
		copy(image[at:], name)
		image[at+11] = attributes
		le.PutUint16(image[at+26:], cluster)
		le.PutUint32(image[at+28:], uint32(size))
	}
	const folder, file = 0x10, 0x20
	program := uefiProgram()
	entry(rootDir*sector, "EFI        ", folder, 2, 0)
	entry(data*sector, ".          ", folder, 2, 0)
	entry(data*sector+32, "..         ", folder, 0, 0)
	entry(data*sector+64, "BOOT       ", folder, 3, 0)
	entry((data+1)*sector, ".          ", folder, 3, 0)
	entry((data+1)*sector+32, "..         ", folder, 2, 0)
	entry((data+1)*sector+64, "BOOTX64 EFI", file, 4, len(program))
	copy(image[(data+2)*sector:], program)
	return image
}

// uefiDisk writes a raw disk that boots uefiProgram.
func uefiDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, fatImage(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// uefiISO writes an ISO image that boots uefiProgram by El Torito.
func uefiISO(t *testing.T) string {
	t.Helper()
	return writeISO(t, isoForUEFI, fatImage())
}
