"""The methods. Each file holds one method: its building block and its recipe. Import them from `gradtx`."""
