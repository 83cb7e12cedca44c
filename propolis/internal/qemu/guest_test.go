package qemu

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// hello is what the test guest prints when it has started.
const hello = "guest up"

// bootSector is a guest of 155 bytes. It prints "guest up" on COM1 and then
// obeys single bytes: r resets through port 0xcf9, p powers off through ACPI,
// c reports a panic to pvpanic, w writes sector after sector with itself to
// the boot disk from number 1 up and prints a dot for each ("!" on failure).
// Other bytes it sends back. It obeys the ACPI power button too.
//
//	start: cli ; or SeaBIOS would take keys from the UART at timer ticks
//	       xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7c00; mov [drive],dl
//	       mov dx,0x602; mov ax,0x100; out dx,ax        ; enable the button
//	       mov si,hello
//	puts:  lodsb; test al,al; jz wait; mov dx,0x3f8; out dx,al; jmp puts
//	wait:  mov dx,0x600; in ax,dx; test ah,1; jnz power ; button pressed?
//	       mov dx,0x3fd; in al,dx; test al,1; jz wait   ; byte on COM1?
//	       mov dx,0x3f8; in al,dx
//	       cmp al,'r'; je reset; cmp al,'p'; je power
//	       cmp al,'c'; je crash; cmp al,'w'; je write
//	       out dx,al; jmp wait
//	reset: mov dx,0xcf9; mov al,6; out dx,al; jmp wait
//	power: mov dx,0x604; mov ax,0x2000; out dx,ax; hlt
//	crash: mov dx,0x505; mov al,1; out dx,al; jmp wait
//	write: inc word [lba]; mov si,packet; mov ax,0x4300; mov dl,[drive]
//	       int 0x13; mov al,'.'; jnc ok; mov al,'!'
//	ok:    mov dx,0x3f8; out dx,al; jmp write
//	packet: db 16,0,1,0; dw 0x7c00,0
//	lba:   dq 0
//	drive: db 0
//	hello: db "guest up\r\n",0
func bootSector() []byte {
	code := []byte{
		0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x88, 0x16,
		0x8f, 0x7c, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xbe, 0x90, 0x7c,
		0xac, 0x84, 0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, 0xba,
		0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x75, 0x27, 0xba, 0xfd, 0x03, 0xec,
		0xa8, 0x01, 0x74, 0xef, 0xba, 0xf8, 0x03, 0xec, 0x3c, 0x72, 0x74, 0x0f,
		0x3c, 0x70, 0x74, 0x13, 0x3c, 0x63, 0x74, 0x17, 0x3c, 0x77, 0x74, 0x1b,
		0xee, 0xeb, 0xd8, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xd0, 0xba,
		0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xba, 0x05, 0x05, 0xb0, 0x01,
		0xee, 0xeb, 0xc0, 0xff, 0x06, 0x87, 0x7c, 0xbe, 0x7f, 0x7c, 0xb8, 0x00,
		0x43, 0x8a, 0x16, 0x8f, 0x7c, 0xcd, 0x13, 0xb0, 0x2e, 0x73, 0x02, 0xb0,
		0x21, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xe4, 0x10, 0x00, 0x01, 0x00, 0x00,
		0x7c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x67, 0x75, 0x65, 0x73, 0x74, 0x20, 0x75, 0x70, 0x0d, 0x0a, 0x00,
	}
	sector := make([]byte, 512)
	copy(sector, code)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// biosDisk writes a raw disk of 32 MiB with the test guest.
func biosDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, bootSector(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

// The sectors of a test ISO (ECMA-119; El Torito 1.0).
const (
	isoPrimary = 16 + iota
	isoBootRecord
	isoEnd
	isoCatalog
	isoImage
)

// Platforms of an El Torito boot image.
const (
	isoForBIOS = 0x00
	isoForUEFI = 0xef
)

// writeISO writes an ISO image without files that boots an image by El
// Torito, without emulation.
func writeISO(t *testing.T, platform byte, boot []byte) string {
	t.Helper()
	sectors := isoImage + (len(boot)+cdBlockSize-1)/cdBlockSize
	image := make([]byte, sectors*cdBlockSize)
	sector := func(n int) []byte { return image[n*cdBlockSize:] }
	copy(sector(isoPrimary), "\x01CD001\x01")
	binary.LittleEndian.PutUint32(sector(isoPrimary)[80:], uint32(sectors))
	binary.BigEndian.PutUint32(sector(isoPrimary)[84:], uint32(sectors))
	copy(sector(isoBootRecord), "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(sector(isoBootRecord)[0x47:], isoCatalog)
	copy(sector(isoEnd), "\xffCD001\x01")
	catalog := sector(isoCatalog)
	catalog[0], catalog[1] = 1, platform // validation entry
	catalog[30], catalog[31] = 0x55, 0xaa
	binary.LittleEndian.PutUint16(catalog[28:], checksum(catalog[:32]))
	entry := catalog[32:]
	entry[0] = 0x88                                                 // bootable, no emulation
	binary.LittleEndian.PutUint16(entry[6:], uint16(len(boot)/512)) // sectors of 512 bytes
	binary.LittleEndian.PutUint32(entry[8:], isoImage)
	copy(sector(isoImage), boot)
	path := filepath.Join(t.TempDir(), "boot.iso")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// biosISO writes an ISO image that boots bootSector.
func biosISO(t *testing.T) string {
	t.Helper()
	return writeISO(t, isoForBIOS, bootSector())
}

// checksum is what makes the 16-bit words of data add up to zero.
func checksum(data []byte) uint16 {
	var sum uint16
	for i := 0; i < len(data); i += 2 {
		sum += binary.LittleEndian.Uint16(data[i:])
	}
	return -sum
}

// written counts the sectors from 1 up that the guest has written.
func written(t *testing.T, raw string) int {
	t.Helper()
	data, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for sector := 1; (sector+1)*512 <= len(data); sector++ {
		// The first bytes are code, which does not change while it runs.
		if bytes.Equal(data[sector*512:sector*512+64], bootSector()[:64]) {
			n++
		}
	}
	return n
}
