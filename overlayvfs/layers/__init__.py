"""What a stack is made of: the layer protocols (base) and their adapters."""
