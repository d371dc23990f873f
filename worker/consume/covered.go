package consume

// ReadMetadata calls settled for every offset above the watermark that a
// commit's metadata names: what an inspector needs to tell which offsets a
// commit covers. Everything below the watermark is settled too. The error is
// ErrMetadata for text that is not a worker's.
func ReadMetadata(watermark int64, text string, settled func(offset int64)) error {
	if text == "" {
		return nil
	}
	return decodeMetadata(watermark, text, settled)
}
