"""What `--model toy-longrope` adds to the toy: adapters, trained to read far."""
