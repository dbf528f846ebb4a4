package ssa

// The vectors of tests/vectors: requests are written, replies read, and records judged as they say.

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// vectors reads a file of JSON lines. SSA_VECTORS is where they are.
func vectors[T any](t *testing.T, name string) []T {
	t.Helper()
	directory := os.Getenv("SSA_VECTORS")
	if directory == "" {
		directory = filepath.Join("..", "..", "tests", "vectors")
	}
	file, err := os.Open(filepath.Join(directory, name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rows []T
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row T
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		t.Fatal("no vectors")
	}
	return rows
}

func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type message struct {
	Meaning, Kind, Hex string
	ReadAs             string `json:"read_as"`
	Error              string
	Attributes         json.RawMessage
}

var kinds = map[string]uint16{
	"connect": kindConnect, "accept": kindAccept, "listen": kindListen, "check": kindCheck, "describe": kindDescribe,
	"rekey": kindRekey, "ticket": kindTicket, "plug": kindPlug, "gather": kindGather, "close": kindClose,
	"fallback": kindFallback,
}

// An attribute of a vector, in the order of its file.
type attributeRow struct {
	name  string
	value any
}

func attributesInOrder(t *testing.T, object json.RawMessage) []attributeRow {
	t.Helper()
	var rows []attributeRow
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	if _, err := decoder.Token(); err != nil { // the brace
		t.Fatal(err)
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, attributeRow{name.(string), value})
	}
	return rows
}

func attributeNamed(t *testing.T, name string) uint16 {
	t.Helper()
	for _, row := range attributeForms {
		if row.name == name {
			return row.number
		}
	}
	t.Fatalf("no attribute %s", name)
	return 0
}

// written is how an attribute's value is on the wire, as this library writes it.
func written(t *testing.T, r *request, row attributeRow) {
	t.Helper()
	number := attributeNamed(t, row.name)
	switch value := row.value.(type) {
	case json.Number:
		small, err := value.Int64()
		if err != nil {
			t.Fatal(err)
		}
		if isFormedUntrusted(number, make([]byte, u32Size)) {
			r.number(number, uint32(small))
		} else {
			r.bytes(number, native.AppendUint64(nil, uint64(small)))
		}
	case []any:
		var names []string
		for _, name := range value {
			names = append(names, name.(string))
		}
		if err := r.names(number, names); err != nil {
			t.Fatal(err)
		}
	case string:
		if attributeIsBytes(number) {
			r.bytes(number, fromHex(t, value))
		} else {
			r.text(number, value)
		}
	}
}

// attributeIsBytes: such a value has no form, so that a NUL is no error.
func attributeIsBytes(number uint16) bool {
	return isFormedUntrusted(number, []byte{0})
}

func TestRequestsAreWrittenByteForByte(t *testing.T) {
	count := 0
	for _, row := range vectors[message](t, "messages") {
		if row.Kind == "reply" {
			continue
		}
		asked := newRequest(kinds[row.Kind])
		for _, attribute := range attributesInOrder(t, row.Attributes) {
			written(t, asked, attribute)
		}
		packet, err := asked.packet()
		if err != nil || hex.EncodeToString(packet) != row.Hex {
			t.Errorf("%s: %x, %v", row.Meaning, packet, err)
		}
		count++
	}
	if count < 10 {
		t.Error("too few requests:", count)
	}
}

func TestRepliesAreRead(t *testing.T) {
	for _, row := range append(vectors[message](t, "messages"), vectors[message](t, "also-read")...) {
		if row.Kind != "reply" {
			continue
		}
		told, err := readReplyUntrusted(fromHex(t, row.Hex))
		if err != nil {
			t.Errorf("%s: %v", row.Meaning, err)
			continue
		}
		wanted := newRequest(kindReply)
		for _, attribute := range attributesInOrder(t, row.Attributes) {
			written(t, wanted, attribute)
		}
		packet, _ := wanted.packet()
		same, err := readReplyUntrusted(packet)
		if err != nil {
			t.Fatal(err)
		}
		for number, value := range same {
			if string(told[number]) != string(value) {
				t.Errorf("%s: attribute %d is %x", row.Meaning, number, told[number])
			}
		}
	}
}

func TestWhatIsNoReplyIsRefused(t *testing.T) {
	for _, row := range vectors[message](t, "refused") {
		if row.ReadAs != "reply" {
			continue
		}
		_, err := readReplyUntrusted(fromHex(t, row.Hex))
		if is := says(err, "VERSION_MISMATCH"); err == nil || is != (row.Error == "VERSION_MISMATCH") {
			t.Errorf("%s: %v", row.Meaning, err)
		}
	}
}

func TestWhatRecordsMean(t *testing.T) {
	type record struct {
		Meaning, Version, Role, Hex, Outcome string
		Type                                 int
		Alert                                *string
	}
	outcomes := map[meaning]string{
		meansEnd: "end", meansPassOver: "pass over", meansTicket: "ticket", meansNoRenegotiation: "no_renegotiation",
		meansAsk: "ask", meansFail: "fail",
	}
	for _, row := range vectors[record](t, "records") {
		judged := verdictUntrusted(versions[row.Version], row.Role == "server", row.Type, fromHex(t, row.Hex))
		if outcomes[judged.meaning] != row.Outcome {
			t.Errorf("%s: %s", row.Meaning, outcomes[judged.meaning])
		}
		alert := noAlert
		if row.Alert != nil {
			alert = alertNumber(*row.Alert)
		}
		if judged.meaning == meansFail && judged.alert != alert {
			t.Errorf("%s: %d", row.Meaning, judged.alert)
		}
	}
}

// FuzzReply looks for a packet that ends the program.
func FuzzReply(f *testing.F) {
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if told, err := readReplyUntrusted(packet); err == nil {
			_ = told.refusal()
			_ = certificatesUntrusted(told[attributeChain])
		}
	})
}

// FuzzRecord looks for a record that ends the program.
func FuzzRecord(f *testing.F) {
	f.Add(22, []byte{keyUpdate, 0, 0, 1, 1}, true)
	f.Fuzz(func(t *testing.T, kind int, content []byte, server bool) {
		for _, version := range versions {
			verdictUntrusted(version, server, kind, content)
		}
	})
}
