"""Token ids in, token ids out, and the messages on either side of them."""
