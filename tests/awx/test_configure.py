def test_x(awx):
    print(awx.first_output[-3000:])
