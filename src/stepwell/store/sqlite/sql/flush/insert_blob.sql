insert or ignore into blob ({blob}) values ({blob?})
