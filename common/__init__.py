"""What every reproduction needs once: devices, data, chance, optimisers, the loop, runs,
pictures."""
